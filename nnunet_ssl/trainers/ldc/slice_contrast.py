"""The contrast of slices of LDC: which slices of a batch take part, and this rank's part of the mean over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_ssl.losses.boundary_contrast import (
    boundary_contrast,
    distant_pairs,
    draw_slices,
    keep_slices,
    take_slices,
)
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.training.distributed import ddp_weight

Projection = Callable[[Tensor], Tensor]


def slice_contrast(
    projections: tuple[Projection, Projection],
    maps: tuple[Tensor, Tensor],
    valid: tuple[Tensor, Tensor],
    has_ignore: bool,
    settings: LDCHyperparameters,
) -> tuple[Tensor, Tensor]:
    """(L_ctr of Eq. 4, number of slices that take part).

    Args:
        projections: slices (A, F, H, W) -> vectors (A, D), of teacher and student; the student's receives the gradient.
        maps: signed distances (B_L + B_U, F, *P) of teacher and student.
        valid: (B_L, 1, *P) and (B_U, 1, *P) bool, where those of labelled and unlabelled patches count.
        has_ignore: whether a slice of a labelled patch takes part only if all of it is valid.
        settings: how many slices, how near negatives may lie, and the temperature.
    """
    (teacher, student), index = maps, None
    if teacher.ndim == 5:
        index = draw_slices(len(teacher), teacher.shape[2], settings.slices, teacher.device)
    whole = torch.arange(len(teacher), device=teacher.device) < (len(valid[0]) if has_ignore else 0)
    of_teacher, of_student = take_slices(teacher, index), take_slices(student, index)
    keep = keep_slices(of_teacher, take_slices(torch.cat(valid), index), whole)
    vectors = projections[1](of_student.flatten(0, 1))
    with torch.no_grad():
        targets = projections[0](of_teacher.flatten(0, 1))
    near = settings.slice_distance
    negatives = None if index is None or near == 0 else distant_pairs(index, near)
    loss, number = boundary_contrast(targets, vectors, settings.temperature, keep, negatives), keep.sum()
    return loss * ddp_weight(number), number
