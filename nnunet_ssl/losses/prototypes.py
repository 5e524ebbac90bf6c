"""Contrast between uncertain voxels and the prototypes of the classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32

SMALLEST_NORM = 1e-6  # bounds the gradient of a feature vector that is zero


def prototype_contrast(
    features: Tensor,
    reliable_class: Tensor,
    uncertain_class: Tensor,
    num_classes: int,
    sample_fraction: float = 0.01,
    max_samples: int = 1024,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Pull uncertain voxels to the prototype of their class and push the prototypes apart.

    Source: Lu et al., "Semi-supervised medical image segmentation via dual networks", Eqs. 10 and 11. With c_k the mean
    feature of the reliable voxels of class k, U_k a sample of its uncertain voxels, d(a, b) the distance of the
    normalised vectors, in [0, 2], and sg a stop of the gradient,

        mean_k mean_{v in U_k} d(f(v), sg(c_k)) + mean_{k < l} (2 - d(c_k, c_l)).

    Only classes with prototype and uncertain voxels enter the first mean, only pairs of prototypes the second. As the
    text of the paper has it, prototypes are pushed apart; the printed equation adds d(c_k, c_l) instead.

    Args:
        features: (B, F, *S); receives the gradient, also through the prototypes of the second mean.
        reliable_class: (B, *S) int64, class of a reliable voxel, -1 elsewhere.
        uncertain_class: (B, *S) int64, class of an uncertain voxel, -1 elsewhere.
        num_classes: K.
        sample_fraction: of the uncertain voxels of a class, drawn without replacement, at least one.
        max_samples: drawn voxels per class at most.
        generator: of the features' device; ``None`` draws from the global one.

    Returns:
        Scalar in [0, 4], float32 (float64 for float64 features); zero, still connected, where nothing is defined.
    """
    features = features.flatten(2)  # in their own precision: a map of them in float32 is the largest of the step
    prototypes, present = class_means(features, reliable_class.flatten(1), num_classes)
    prototypes = F.normalize(prototypes, dim=1, eps=SMALLEST_NORM)

    voxels, drawn = sample_voxels(uncertain_class.flatten(), num_classes, sample_fraction, max_samples, generator)
    size = features.shape[2]
    candidates = features[voxels // size, :, voxels % size]  # (K, samples, F), without a copy of the features
    candidates = F.normalize(at_least_float32(candidates), dim=2, eps=SMALLEST_NORM)
    # the gradient of this norm is zero, not NaN, at distance zero
    distance = torch.linalg.vector_norm(candidates - prototypes.detach().unsqueeze(1), dim=2)
    per_class = (distance * drawn).sum(1) / drawn.sum(1).clamp(min=1)
    aligned = present & drawn.any(1)
    alignment = (per_class * aligned).sum() / aligned.sum().clamp(min=1)

    first, second = torch.triu_indices(num_classes, num_classes, 1, device=features.device)
    apart = torch.linalg.vector_norm(prototypes[first] - prototypes[second], dim=1)
    pairs = present[first] & present[second]
    separation = ((2.0 - apart) * pairs).sum() / pairs.sum().clamp(min=1)
    return alignment + separation


def class_means(features: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mean feature of each class (K, F) and whether it has a voxel (K,), of features (B, F, N), classes (B, N).

    Sample by sample, so that features in half precision are in memory in float32 for one of them at a time.
    """
    parts = [_sums(one, own, num_classes) for one, own in zip(features, classes, strict=True)]
    count = torch.stack([(classes == k).sum() for k in range(num_classes)])
    return torch.stack(parts).sum(0) / count.clamp(min=1).unsqueeze(1), count > 0


def _sums(features: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """(K, F), sums over the voxels of each class, of features (F, N) and classes (N,)."""
    features = at_least_float32(features)
    members = classes == torch.arange(num_classes, device=classes.device).unsqueeze(1)
    return members.to(features.dtype) @ features.T


@torch.no_grad()
def sample_voxels(
    classes: Tensor, num_classes: int, fraction: float, most: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Voxels of each class, drawn uniformly without replacement and without synchronising.

    Args:
        classes: (N,), -1 for none.
        fraction: of the voxels of a class, rounded down, but at least one where there is one.
        most: at most as many per class.

    Returns:
        voxels (K, M) int64 and drawn (K, M) bool; the voxels not drawn are to be ignored.
    """
    order = torch.rand(classes.shape, device=classes.device, generator=generator)
    size = min(most, classes.numel())
    rank = torch.arange(size, device=classes.device)
    voxels, drawn = [], []
    for label in range(num_classes):
        members = classes == label
        count = members.sum()
        wanted = torch.minimum((count * fraction).long().clamp(1, size), count)
        voxels.append(torch.where(members, order, -1.0).topk(size).indices)
        drawn.append(rank < wanted)
    return torch.stack(voxels), torch.stack(drawn)
