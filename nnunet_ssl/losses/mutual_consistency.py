"""Each of several predictions learns the sharpened others.

Source: MC-Net (Wu et al., MICCAI 2021) and MC-Net+ (Wu et al., Medical Image Analysis 2022), their code.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import torch
from torch import Tensor

from nnunet_ssl.losses.consistency import masked_mean
from nnunet_ssl.losses.precision import at_least_float32


def sharpen(probabilities: Tensor, temperature: float, per_channel: bool = False) -> Tensor:
    """p^(1/T), normalised; T = 1 changes nothing, T near 0 gives the most probable class.

    Args:
        probabilities: (B, K, *S) in [0, 1].
        temperature: T, above 0; 0.1 in the paper.
        per_channel: p^(1/T) / (p^(1/T) + (1 - p)^(1/T)) of each channel, as in the authors' code and for regions.
            Otherwise a distribution over the channels, which for two classes is the same. A single channel is always
            sharpened against its complement.

    Returns:
        (B, K, *S), float32 (float64 for float64).
    """
    p = at_least_float32(probabilities)
    log_p = p.clamp(min=torch.finfo(p.dtype).tiny).log()
    if per_channel or p.shape[1] == 1:
        log_q = (1 - p).clamp(min=torch.finfo(p.dtype).tiny).log()
        return ((log_p - log_q) / temperature).sigmoid()
    return (log_p / temperature).softmax(1)


def mutual_consistency(
    list_of_logits: Sequence[Tensor],
    temperature: float,
    mask: Tensor | None = None,
    detach: bool = True,
    *,
    regions: bool = False,
    per_channel: bool = False,
) -> Tensor:
    """Sum over ordered pairs i != j of the mean over voxels and channels of (p_i - sharpen(p_j))^2.

    Args:
        list_of_logits: n tensors (B, K, *S) of the same voxels; 2 make MC-Net, 3 MC-Net+.
        temperature: see :func:`sharpen`.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all. All zero gives 0, still connected.
        detach: no gradient through the sharpened side, whose slope is 1 / T at 0.5. The authors' code has it.
        regions: channels are overlapping regions: p is the sigmoid.
        per_channel: see :func:`sharpen`; always so for regions.

    Returns:
        Scalar, float32 (float64 for float64 logits).

    Raises:
        ValueError: fewer than two predictions.
    """
    if len(list_of_logits) < 2:
        raise ValueError(f"mutual consistency needs at least two predictions, got {len(list_of_logits)}")
    given = [at_least_float32(z) for z in list_of_logits]
    probabilities = [z.sigmoid() if regions else z.softmax(1) for z in given]
    sharpened = [sharpen(p.detach() if detach else p, temperature, per_channel or regions) for p in probabilities]
    error = sum(
        torch.square(probabilities[i] - sharpened[j]).mean(1, keepdim=True)
        for i, j in permutations(range(len(given)), 2)
    )
    assert isinstance(error, Tensor)
    return masked_mean(error, mask)
