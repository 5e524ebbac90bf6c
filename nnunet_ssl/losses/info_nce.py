"""InfoNCE between two views of each sample, with whole maps or single voxels as vectors.

Source: DKUXNet (Wu, Li & Zhang, ISBI 2024), Eqs. 3 and 4. The printed factor 1 / (HWD) has two readings: a vector
that is the whole map, where it is void, or one vector per voxel, where it is the mean over voxels. Both views receive
the gradient. Evaluated without mixed precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32, float32_region

LEAST_NORM = 1.0  # one voxel of mass: a map without any foreground has no direction, and no exploding gradient
SHORT = 1e-4  # a single voxel's vector below it counts for nothing


def paired_info_nce(vectors: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean over all anchors of -log softmax of the similarity to the partner among those to all other vectors.

    The similarity is the cosine, with norms of at least 1, divided by the temperature.

    Args:
        vectors: (2B, L), rows a and a + B are two views of one sample.

    Returns:
        Scalar, float32 (float64 for float64 vectors): 0 for B = 1, log(2B - 1) where all similarities are equal.
    """
    logits = _similarities(vectors) / temperature
    return _of_partners(logits).mean()


def paired_distance(vectors: Tensor, temperature: float = 0.1) -> Tensor:
    """Mean over samples of (1 - similarity of the two views) / temperature: the positives of InfoNCE without negatives.

    Args:
        vectors: (2B, L), rows a and a + B are two views of one sample. A vector with a norm below 1 is not similar.
    """
    weak, strong = _directions(vectors).chunk(2)
    return (1 - (weak * strong).sum(1)).mean() / temperature


def voxelwise_info_nce(maps: Tensor, temperature: float = 0.1, mask: Tensor | None = None) -> Tensor:
    """:func:`paired_info_nce` at every voxel, whose negatives are the same position in the other samples.

    The similarity is the cosine, Eq. 3. A vector of all classes is never short; of the foreground alone it is where the
    prediction is background, and such voxels would be drawn together by whatever direction is left.

    Args:
        maps: (2B, C, *S), rows a and a + B are two views of one sample.
        mask: (2B, 1, *S), true or 1 where a voxel counts; elsewhere it is no anchor, and similar to nothing. ``None``
            counts all. All zero gives 0, still connected.

    Returns:
        Scalar, float32 (float64 for float64 maps), the mean over voxels and anchors.
    """
    vectors = maps.flatten(2).permute(2, 0, 1)  # (V, 2B, C)
    if mask is None:
        return _of_partners(_similarities(vectors, SHORT) / temperature).mean()
    counted = mask.flatten(1).T.bool()  # (V, 2B)
    similarities = _similarities(vectors * counted[..., None], SHORT)
    losses = torch.where(counted, _of_partners(similarities / temperature), 0.0)
    return losses.sum() / counted.sum().clamp(min=1)


@torch.no_grad()
def mean_similarities(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """(mean similarity to the partner, mean similarity to all others), scalars, of vectors (2B, L); for the log."""
    similarities, half = _similarities(vectors), len(vectors) // 2
    positive = similarities.diagonal(half).mean()
    others = similarities.sum() - similarities.diagonal().sum() - 2 * half * positive
    return positive, others / max(1, 2 * half * (2 * half - 2))


def _directions(vectors: Tensor, least: float = LEAST_NORM) -> Tensor:
    vectors = at_least_float32(vectors)
    return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=least)


def _similarities(vectors: Tensor, least: float = LEAST_NORM) -> Tensor:
    """(..., M, L) -> (..., M, M)."""
    with float32_region(vectors.device):
        directions = _directions(vectors, least)
        return directions @ directions.mT


def _of_partners(logits: Tensor) -> Tensor:
    """-log softmax over the others of each row's partner; (..., M, M) -> (..., M)."""
    number, half = logits.shape[-1], logits.shape[-1] // 2
    partner = torch.cat([logits.diagonal(half, -2, -1), logits.diagonal(-half, -2, -1)], -1)
    if number == 2:
        return 0.0 * partner
    index = torch.arange(number, device=logits.device)
    no_negative = (index[:, None] - index) % half == 0  # itself and the partner
    negatives = logits.masked_fill(no_negative, -torch.inf).logsumexp(-1)
    return F.softplus(negatives - partner)  # exact where the loss is small, as log(1 + x) - log(1) is not
