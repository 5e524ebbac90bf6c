"""Networks of the semi-supervised methods: plain torch, constructor arguments are nnU-Net's plans keys."""
