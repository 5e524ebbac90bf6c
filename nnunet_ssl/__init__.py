"""Semi-supervised training for nnU-Net v2, as a plugin (not self-supervised pre-training)."""

__version__ = "0.2.0"
