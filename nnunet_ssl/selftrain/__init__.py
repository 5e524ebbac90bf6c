"""`nnunet_ssl selftrain`: semi-supervised training in rounds of stock nnU-Net: train, label the rest, select, train."""
