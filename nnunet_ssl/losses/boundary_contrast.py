"""Contrast between slices of the signed distance maps of a teacher and a student.

Source: Zheng et al. (arXiv:2409.07793), Eq. 4, after SimCVD (You et al., IEEE TMI 2022).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.precision import at_least_float32


def boundary_contrast(
    teacher: Tensor,
    student: Tensor,
    temperature: float = 0.07,
    keep: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """Mean over slices a of -log exp(t_a s_a / tau) / sum_b exp(t_a s_b / tau), b over all kept slices, a included.

    Args:
        teacher: (A, D), unit length; detached.
        student: (A, D), unit length; receives the gradient.
        temperature: tau, 0.07 in the released code.
        keep: (A,) bool, slices that take part at all; ``None``: all. A mask, so that the shape does not depend on data.
        negatives: (A, A) bool, whether slice b may be a negative of slice a; ``None``: every other slice.

    Returns:
        Scalar, float32 (float64 for float64 projections); 0, still connected, for fewer than two slices.
    """
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    number = len(student)
    keep = torch.ones(number, dtype=torch.bool, device=student.device) if keep is None else keep
    similarity = teacher @ student.T / temperature
    similarity = similarity.masked_fill(~_entering(keep, negatives), -torch.inf)
    error = F.cross_entropy(similarity, torch.arange(number, device=student.device), reduction="none")
    return _mean_of_kept(error, keep)


def collapse_value(keep: Tensor, negatives: Tensor | None = None) -> Tensor:
    """What :func:`boundary_contrast` is where all slices are embedded alike: mean of log(number of slices b).

    Args: as there. Returns a scalar, 0 where no slice has a negative.
    """
    return _mean_of_kept(_entering(keep, negatives).sum(1).float().log(), keep)


def _entering(keep: Tensor, negatives: Tensor | None) -> Tensor:
    """(A, A) bool: the slices b of each slice a, itself included."""
    number = len(keep)
    entering = keep.expand(number, number) if negatives is None else keep & negatives
    return entering | torch.eye(number, dtype=torch.bool, device=keep.device)


def _mean_of_kept(values: Tensor, keep: Tensor) -> Tensor:
    count = keep.sum()
    return torch.where(keep & (count >= 2), values, 0.0).sum() / count.clamp(min=1)


@torch.no_grad()
def slice_similarities(
    teacher: Tensor, student: Tensor, keep: Tensor, negatives: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((mean similarity t_a s_a of positives, their number), (of negatives t_a s_b, their number)); 0 of none.

    Args: as :func:`boundary_contrast`. Apart they say more than the loss: alike, slices are not told apart; a positive
    near 1 beside a low negative leaves nothing to learn.
    """
    similarity = at_least_float32(teacher) @ at_least_float32(student).T
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)
    pairs = keep[:, None] & keep & ~itself
    if negatives is not None:
        pairs = pairs & negatives
    positive, negative = (
        ((similarity * chosen).sum() / chosen.sum().clamp(min=1), chosen.sum()) for chosen in (itself & keep, pairs)
    )
    return positive, negative


def draw_slices(samples: int, depth: int, number: int, device: torch.device) -> Tensor:
    """(samples, n) slice indices, one uniformly from each of n = min(number, depth) equal bins of each sample."""
    bins = min(number, depth)
    position = torch.arange(bins, device=device) + torch.rand(samples, bins, device=device)
    return (position * (depth / bins)).long().clamp_(max=depth - 1)  # the product may be rounded up to the depth


def take_slices(maps: Tensor, index: Tensor | None) -> Tensor:
    """The slices (B, n, C, H, W) of maps (B, C, D, H, W) along their first axis; maps (B, C, H, W) are one slice each.

    Args:
        index: (B, n) int64; ``None`` for maps of two axes.
    """
    if index is None:
        return maps.unsqueeze(1)
    rows = torch.arange(len(maps), device=maps.device).unsqueeze(1)
    return maps.transpose(1, 2)[rows, index]


def keep_slices(distance: Tensor, valid: Tensor, complete: Tensor, segmented: Tensor | None = None) -> Tensor:
    """(A,) bool: slices that show an object, that is a negative distance at a voxel that counts.

    Args:
        distance: (B, n, F, H, W), the teacher's signed distances.
        valid: (B, n, 1, H, W) bool, where they count: no padding, no ignore label.
        complete: (B,) bool, samples of which a slice is kept only if all of it is valid (those with an ignore label).
        segmented: (B, n, F, H, W) bool, the teacher's segmentation, in which a slice must show an object of the same
            class too: the distance head of a network that predicts background goes on seeing objects. ``None``: it need
            not.
    """
    shows = ((distance < 0) & valid).flatten(3).any(3)
    if segmented is not None:
        shows = shows & (segmented & valid).flatten(3).any(3)
    shows = shows.any(2)
    whole = valid.flatten(2).all(2) | ~complete.unsqueeze(1)
    return (shows & whole).flatten()


def distant_pairs(index: Tensor, distance: int) -> Tensor:
    """(A, A) bool: false for two slices of one sample that lie ``distance`` or less apart; index (B, n)."""
    sample = torch.arange(len(index), device=index.device).repeat_interleave(index.shape[1])
    place = index.flatten()
    near = (place.unsqueeze(1) - place).abs() <= distance
    return ~(near & (sample.unsqueeze(1) == sample))
