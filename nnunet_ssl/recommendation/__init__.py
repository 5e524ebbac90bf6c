"""Which trainer for a dataset: what the dataset is, what has been measured, and what follows."""
