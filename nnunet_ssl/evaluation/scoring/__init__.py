"""Metrics of segmentations: per case and class, with MONAI's functions, on the original grid."""
