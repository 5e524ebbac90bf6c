"""The contrast of slices of LDC: which slices of a batch take part, and this rank's part of the mean over them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_ssl.losses.boundary_contrast import (
    boundary_contrast,
    collapse_value,
    distant_pairs,
    draw_slices,
    keep_slices,
    slice_similarities,
    take_slices,
)
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from nnunet_ssl.training.distributed import ddp_weight
from nnunet_ssl.training.monitor import COUNT, Monitor

Projection = Callable[[Tensor], Tensor]


def slice_contrast(
    projections: tuple[Projection, Projection],
    maps: tuple[Tensor, Tensor],
    segmented: Tensor,
    valid: tuple[Tensor, Tensor],
    has_ignore: bool,
    settings: LDCHyperparameters,
    monitor: Monitor,
) -> Tensor:
    """L_ctr of Eq. 4; on record: how many slices take part, and the similarities of positives and of negatives.

    Args:
        projections: slices (A, F, H, W) -> vectors (A, D), of teacher and student; the student's receives the gradient.
        maps: signed distances (B_L + B_U, F, *P) of teacher and student.
        segmented: (B_L + B_U, F, *P) bool, the teacher's segmentation.
        valid: (B_L, 1, *P) and (B_U, 1, *P) bool, where those of labelled and unlabelled patches count.
        has_ignore: whether a slice of a labelled patch takes part only if all of it is valid.
        settings: how many slices, how near negatives may lie, and the temperature.
        monitor: receives what is put on record.
    """
    teacher, index = maps[0], None
    if teacher.ndim == 5:
        index = draw_slices(len(teacher), teacher.shape[2], settings.slices, teacher.device)
    whole = torch.arange(len(teacher), device=teacher.device) < (len(valid[0]) if has_ignore else 0)
    of_teacher, of_student, seen, known = (take_slices(x, index) for x in (*maps, segmented, torch.cat(valid)))
    keep = keep_slices(of_teacher, known, whole, seen)
    vectors = projections[1](of_student.flatten(0, 1))
    with torch.no_grad():
        targets = projections[0](of_teacher.flatten(0, 1))
    near = settings.slice_distance
    negatives = None if index is None or near == 0 else distant_pairs(index, near)
    number = keep.sum()
    monitor.add(COUNT + "slices", number)
    for name, found in zip(
        ("positives", "negatives"), slice_similarities(targets, vectors, keep, negatives), strict=True
    ):
        monitor.add(f"similarity_{name}", *found)
    contrast = boundary_contrast(targets, vectors, settings.temperature, keep, negatives)
    alike = collapse_value(keep, negatives)
    monitor.add("contrast_collapse", contrast.detach() / alike.clamp(min=1e-6) - 1, (alike > 0).float())
    return contrast * ddp_weight(number)


def unused(projection: Projection, student: Tensor, slices: int) -> Tensor:
    """0, connected to every weight of a projection that this step does not need, since DDP waits for all of them.

    Of as many slices as in other steps, so that a compiled projection is traced once.
    """
    index = None
    if student.ndim == 5:
        index = student.new_zeros((len(student), min(slices, student.shape[2])), dtype=torch.int64)
    return 0.0 * projection(take_slices(student, index).flatten(0, 1)).sum()
