"""Copies of nnU-Net plans files that carry the settings block of this package."""
