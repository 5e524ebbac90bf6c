"""Noise that changes a prediction most, and how far it changes it.

Source: Miyato et al., "Virtual Adversarial Training" (TPAMI 2018), in the form of SS-Net (Wu et al., MICCAI 2022), its
code: one power iteration and a Dice distance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32

SMALLEST = 1e-20  # root mean square of what has a direction


def of_size(noise: Tensor, rms: float) -> Tensor:
    """Noise (B, C, *S) of the same directions, whose root mean square is ``rms`` in each sample; 0 stays 0."""
    noise = at_least_float32(noise)
    size = torch.square(noise).mean(list(range(1, noise.ndim)), keepdim=True).sqrt()
    return noise * (rms / size.clamp(min=SMALLEST))


def adversarial_noise(
    change: Callable[[Tensor], Tensor], like: Tensor, rms: float, iterations: int = 1, start: Tensor | None = None
) -> Tensor:
    """Approximately the noise of this size that changes the predictions most, by power iteration.

    Gradients of parameters stay as they are.

    Args:
        change: noise (B, C, *S) -> scalar, how far the predictions with the noise are from those without.
        like: (B, C, *S), images.
        rms: root mean square of the noise in each sample, during the iterations and at the end.
        iterations: each a forward and a backward pass.
        start: (B, C, *S); ``None``: uniform, drawn.

    Returns:
        (B, C, *S), float32, without gradient.
    """
    noise = of_size(torch.rand_like(like) - 0.5 if start is None else start, rms)
    for _ in range(iterations):
        noise = noise.detach().requires_grad_()
        # the direction alone counts; a mean over so many voxels would leave no gradient in half precision
        (gradient,) = torch.autograd.grad(change(noise) * like[:, 0].numel(), noise)
        noise = of_size(gradient, rms)
    return noise.detach()


def dice_distance(first: Tensor, second: Tensor, mask: Tensor | None = None, squared: bool = True) -> Tensor:
    """One minus the Dice of two predictions, over the whole batch.

    Args:
        first, second: (B, K, *S) probabilities.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all.
        squared: mean over the channels of 1 - 2 sum p q / sum (p^2 + q^2), which is 0 for equal predictions, as in the
            released 2D code. Otherwise 1 - 2 sum p q / sum (p + q) with all channels in one sum, as in the 3D code; of
            equal predictions this is 0 only where they are certain, so that it sharpens, too.

    Returns:
        Scalar, float32 (float64 for float64).
    """
    p, q = (at_least_float32(x) if mask is None else at_least_float32(x) * mask for x in (first, second))
    axes = [a for a in range(p.ndim) if a != 1 or not squared]
    whole = torch.square(p) + torch.square(q) if squared else p + q
    smooth = 1e-8
    return (1 - (2 * (p * q).sum(axes) + smooth) / (whole.sum(axes) + smooth)).mean()
