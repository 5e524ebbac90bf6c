"""A network that judges maps of an image.

Source: SASSNet (Li et al., MICCAI 2020), its code; there for patches of one size.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nnunet_ssl.architectures.cmaformer_blocks import CONVOLUTIONS

LEAST = 8  # positions from which on an axis is halved
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}


class MapDiscriminator(nn.Module):
    """Four convolutions of stride 2, the first of the maps and of the image each, and the mean over all positions.

    Widths w, 2 w, 4 w, 8 w; behind each a leaky ReLU, behind all but the last a dropout of half of the channels. No
    norm.

    Args:
        maps: F, channels of the maps.
        channels: C of the image.
        patch_size: axes shorter than 8 positions are not halved.
        width: w; 64 in the released code.
    """

    def __init__(self, maps: int, channels: int, patch_size: Sequence[int], width: int = 64) -> None:
        super().__init__()
        dimensions, size = len(patch_size), list(patch_size)
        convolution, layers = CONVOLUTIONS[dimensions], []
        for level in range(4):
            halved = [n >= LEAST for n in size]
            shape = {
                "kernel_size": tuple(4 if h else 3 for h in halved),
                "stride": tuple(2 if h else 1 for h in halved),
                "padding": 1,
            }
            size = [n // 2 if h else n for n, h in zip(size, halved, strict=True)]
            if level == 0:
                self.of_maps, self.of_image = (convolution(n, width, **shape) for n in (maps, channels))
            else:
                layers.append(convolution(width << level - 1, width << level, **shape))
            layers.append(nn.LeakyReLU(0.2))
            if level < 3:
                layers.append(DROPOUT[dimensions](0.5))
        self.layers = nn.Sequential(*layers)
        self.decide = nn.Linear(8 * width, 2)

    def forward(self, maps: Tensor, images: Tensor) -> Tensor:
        """(B, F, *P) and (B, C, *P) -> logits (B, 2)."""
        decided: Tensor = self.decide(self.layers(self.of_maps(maps) + self.of_image(images)).flatten(2).mean(2))
        return decided
