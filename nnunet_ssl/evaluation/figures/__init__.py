"""Pictures as publications show them: embeddings of patches, and pseudo-labels on the image."""
