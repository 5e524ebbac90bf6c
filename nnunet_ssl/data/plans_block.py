"""Keys of this package in a plans file. Apart, so that `nnunet_ssl path` imports neither PyTorch nor nnU-Net."""

BLOCK = "nnunet_ssl"  # all that is ours
SOURCE = "source"  # key in the block: name of the plans that were copied
CHANGED = "changed"  # configuration -> its keys that differ on purpose from the plans it was copied from
