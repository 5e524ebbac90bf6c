"""What training adds to a network for boundary-aware contrast: a head for signed distances, a projection of slices.

Source: CMAformer (Zheng et al., arXiv:2409.07793), Eq. 4. Sizes are recommended; neither paper nor code gives any.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.cmaformer_blocks import CONVOLUTIONS
from nnunet_ssl.architectures.precision import float32_region


class SignedDistanceHead(nn.Module):
    """tanh of a 1x1 convolution of the features that the last layer of the network sees.

    Args:
        dimensions: 2 or 3.
        features: channels of these.
        classes: F, foreground classes.
        start: standard deviation of the first weights, with biases of 0; a small one begins with distances near 0.
            ``None``: PyTorch's initialisation.
    """

    def __init__(self, dimensions: int, features: int, classes: int, start: float | None = None) -> None:
        super().__init__()
        self.conv = conv = CONVOLUTIONS[dimensions](features, classes, 1)
        if start is not None:
            with torch.no_grad():
                for parameter, std in zip(conv.parameters(), (start, 0.0), strict=True):
                    parameter.normal_(0.0, std)

    def forward(self, features: Tensor) -> Tensor:
        """(B, features, *P) -> signed distances (B, F, *P) in [-1, 1], float32."""
        return self.conv(features).float().tanh()


class SliceProjection(nn.Module):
    """Slices of signed distance maps -> vectors of unit length.

    Args:
        classes: F, maps per slice.
        pooled: side of the square to which a slice is averaged.
        hidden, dimensions: of the two linear layers.
    """

    def __init__(self, classes: int, pooled: int = 16, hidden: int = 256, dimensions: int = 128) -> None:
        super().__init__()
        self.pooled = pooled
        self.hidden, self.out = nn.Linear(classes * pooled**2, hidden), nn.Linear(hidden, dimensions)

    def forward(self, slices: Tensor) -> Tensor:
        """(A, F, H, W) -> (A, dimensions), float32."""
        with float32_region(slices.device):
            small = F.adaptive_avg_pool2d(slices.float(), self.pooled).flatten(1)
            return F.normalize(self.out(self.hidden(small).relu()), dim=1)
