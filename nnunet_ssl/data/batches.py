"""What a method's ``losses(labeled, unlabeled)`` receives, already on the training device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class LabeledBatch:
    """Labelled patches, on demand in two voxel-aligned views.

    Attributes:
        image: (B, C, *P) float32, nnU-Net's augmentation; of trainers with ``weak_labeled_view`` its geometric part.
        target: as nnU-Net gives it: (B, 1, *P), with regions (B, R, *P), with deep supervision a list of these.
        make_strong: image -> strong view.
        valid: (B, 1, *P) bool, false where a voxel is padding; ``None`` without ``weak_labeled_view``.
        strong: (B, C, *P) float32, the image with photometric augmentation on top; made on first use.
    """

    image: Tensor
    target: Tensor | list[Tensor]
    make_strong: Callable[[Tensor], Tensor] | None = None
    valid: Tensor | None = None

    @cached_property
    def strong(self) -> Tensor:
        assert self.make_strong is not None
        return self.make_strong(self.image)


class UnlabeledBatch:
    """Unlabelled patches in two voxel-aligned views. There is no target in it.

    Attributes:
        weak: (B, C, *P) float32, nnU-Net's geometric augmentation.
        strong: (B, C, *P) float32, the weak view with photometric augmentation on top; made on first use.
        valid: (B, 1, *P) bool, false where a voxel is padding.
    """

    def __init__(self, weak: Tensor, valid: Tensor, make_strong: Callable[[Tensor], Tensor]) -> None:
        self.weak = weak
        self.valid = valid
        self._make_strong = make_strong

    @cached_property
    def strong(self) -> Tensor:
        return self._make_strong(self.weak)
