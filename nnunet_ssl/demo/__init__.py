"""Semi-supervised training from end to end on a synthetic dataset: ``nnunet_ssl demo``."""
