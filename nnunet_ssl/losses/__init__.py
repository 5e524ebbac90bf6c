"""Pure loss functions of tensors: no trainer state, no device, no schedule."""
