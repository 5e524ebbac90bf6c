"""Random views of small patches in [0, 1], all of a batch at once on its device.

Source: kinds and ranges after the key augmentation of PLGCL's released code (Basak & Yin, CVPR 2023), which enqueues
patches as they are and augments copies only to fill a class up; to augment every key is recommended. For any number of
channels and axes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def key_views(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Flip (0.5 per axis), crop and resize (0.5; up to 20 % per axis), contrast and brightness in [0.5, 1.5], noise.

    The noise has a standard deviation of up to 0.05.

    Args:
        patches: (N, C, *S) in [0, 1].
        generator: on the device of the patches.

    Returns:
        The same shape, in [0, 1]; every patch draws its own parameters.
    """
    number, axes = len(patches), patches.ndim - 2

    def uniform(*shape: int) -> Tensor:
        return torch.rand(number, *shape, generator=generator, device=patches.device)

    flip = torch.where(uniform(axes) < 0.5, -1.0, 1.0)
    kept = 1 - 0.2 * uniform(axes) * (uniform(1) < 0.5)
    shift = (2 * uniform(axes) - 1) * (1 - kept)
    affine = torch.cat([torch.diag_embed(flip * kept), shift[..., None]], 2)
    field = F.affine_grid(affine, list(patches.shape), align_corners=False)
    views = F.grid_sample(patches, field, padding_mode="border", align_corners=False)

    contrast, brightness, noise = (uniform(*[1] * (axes + 1)) for _ in range(3))
    mean = views.mean(tuple(range(1, views.ndim)), keepdim=True)
    views = (mean + (0.5 + contrast) * (views - mean)) * (0.5 + brightness)
    grain = torch.randn(views.shape, generator=generator, device=views.device)
    return (views + 0.05 * noise * grain).clamp_(0, 1)
