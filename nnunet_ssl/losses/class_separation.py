"""Features of voxels near those of their class.

Source: SS-Net (Wu et al., MICCAI 2022), its code, after Alonso et al. (ICCV 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32
from nnunet_ssl.losses.prototypes import SMALLEST_NORM, sample_voxels

LEAST = 2  # features and memories of a class, without which it does not enter


def class_separation(
    features: Tensor, memory: Tensor, counted: tuple[Tensor, Tensor], scores: tuple[Tensor, Tensor], classes: int
) -> Tensor:
    """Sum over the classes of mean_ij a_i b_j (1 - cos(f_i, m_j)), divided by their number.

    a and b: sigmoids of the scores, divided by their mean over the vectors of the class that count. Classes with fewer
    than two features or memories add 0.

    Args:
        features: (F, N, D), N voxels of each foreground class; receives the gradient.
        memory: (F, M, D).
        counted: bool, which of the features (F, N) and of the memory (F, M) count.
        scores: (F, N) and (F, M), logits of the weights.
        classes: number to divide by.

    Returns:
        Scalar in [0, 2], float32 (float64 for float64 features); 0, still connected, where nothing counts.
    """
    # a mean over pairs of a product of weights and cosines is the product of two weighted means
    of_features, of_memory = (_weighted_mean(*given) for given in zip((features, memory), counted, scores, strict=True))
    enough = (counted[0].sum(1) >= LEAST) & (counted[1].sum(1) >= LEAST)
    distance = 1 - (of_features * of_memory).sum(1)
    return torch.where(enough, distance, 0.0 * distance).sum() / classes


def _weighted_mean(vectors: Tensor, counted: Tensor, scores: Tensor) -> Tensor:
    """(F, D), of the vectors (F, N, D), each of length 1."""
    weights = at_least_float32(scores).sigmoid() * counted
    directions = F.normalize(at_least_float32(vectors), dim=2, eps=SMALLEST_NORM)
    return (directions * weights.unsqueeze(2)).sum(1) / weights.sum(1, keepdim=True).clamp(min=SMALLEST_NORM)


def sample_features(features: Tensor, masks: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features of so many voxels of each class, drawn without replacement and without synchronising.

    Args:
        features: (B, C, *S); receives the gradient.
        masks: (B, F, *S) bool, voxels of each class, which may overlap.
        most: per class.

    Returns:
        rows (F, N, C), their voxels (F, N) in the flattened batch, and which of them count (F, N) bool.
    """
    # class 0 where the mask is true, none elsewhere
    drawn = [sample_voxels(mask.flatten().long() - 1, 1, 1.0, most) for mask in masks.unbind(1)]
    voxels, counted = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    features = features.flatten(2)
    size = features.shape[2]
    return features[voxels // size, :, voxels % size], voxels, counted
