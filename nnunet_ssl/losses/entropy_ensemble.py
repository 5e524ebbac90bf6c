"""Two predictions of the same voxels as one: weighted by their certainty, and a third opinion where they disagree.

Source: AD-MT (Zhao et al., "Alternate Diverse Teaching for Semi-supervised Medical Image Segmentation", ECCV 2024).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EPSILON = 1e-10  # in the logarithm, as in the released code


@torch.no_grad()
def certainty_weighted(first: Tensor, second: Tensor, regions: bool = False, unit: str = "bits") -> Tensor:
    """w p_1 + (1 - w) p_2 with w = exp(-H_1) / (exp(-H_1) + exp(-H_2)), H the entropy of each voxel.

    Args:
        first, second: probabilities (B, K, *S), or of regions (B, R, *S), whose entropy is the mean of binary ones.
        regions: the channels overlap.
        unit: of the entropy; in nats the weights are closer to one half.

    Returns:
        As ``first``.
    """
    scale = 1 / math.log(2) if unit == "bits" else 1.0
    weight = (scale * (_entropy(second, regions) - _entropy(first, regions))).sigmoid()
    return torch.lerp(second, first, weight)


def _entropy(probability: Tensor, regions: bool) -> Tensor:
    """(B, 1, *S) in nats."""
    terms = probability * (probability + EPSILON).log()
    if not regions:
        return -terms.sum(1, keepdim=True)
    rest = 1 - probability
    return -(terms + rest * (rest + EPSILON).log()).mean(1, keepdim=True)


@torch.no_grad()
def settle_conflicts(
    label: Tensor, confidence: Tensor, conflict: Tensor, other_label: Tensor, other_confidence: Tensor
) -> tuple[Tensor, Tensor]:
    """(label, confidence), of the other opinion where there is a conflict, it differs and is surer.

    Args:
        label, confidence, other_label, other_confidence: (B, 1, *S), or of regions (B, R, *S).
        conflict: bool, true where those who gave the label disagree.
    """
    taken = conflict & (other_label != label) & (other_confidence > confidence)
    return torch.where(taken, other_label, label), torch.where(taken, other_confidence, confidence)
