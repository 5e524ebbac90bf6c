"""How much labels bring on a dataset, and so how much images without labels can: a learning curve of the control."""
