"""What a method's ``losses(labeled, unlabeled)`` receives, already on the training device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

VIEWS = tuple(f"{stream}.{view}" for stream in ("labeled", "unlabeled") for view in ("image", "weak", "strong"))
"""What a trainer may name in ``views``; only what it names is computed."""


class Batch:
    """Patches of one stream in voxel-aligned views (B, C, *P) float32; a view means the same in every trainer.

    Attributes:
        valid: (B, 1, *P) bool, false where a voxel is padding.
    """

    stream: ClassVar[str]

    def __init__(
        self,
        image: Tensor | None,
        weak: Tensor | None,
        valid: Tensor | None,
        make_strong: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self._image, self._weak, self._make_strong = image, weak, make_strong
        self._some = weak if image is None else image
        if self._some is None:
            raise ValueError(f"a batch of {self.stream} patches needs a view")
        self.valid = torch.ones_like(self._some[:, :1], dtype=torch.bool) if valid is None else valid

    def __len__(self) -> int:
        """B, the number of patches."""
        return len(self.valid)

    @property
    def image(self) -> Tensor:
        """nnU-Net's whole augmentation, geometry and intensities."""
        return self._declared("image", self._image)

    @property
    def weak(self) -> Tensor:
        """nnU-Net's geometric augmentation alone."""
        return self._declared("weak", self._weak)

    @cached_property
    def strong(self) -> Tensor:
        """The weak view with photometric augmentation on top; made on first use."""
        return self.draw_strong()

    def draw_strong(self) -> Tensor:
        """Another strong view of the same patches, (B, C, *P), independent of :attr:`strong`."""
        if self._make_strong is None:
            return self._declared("strong", None)
        return self._make_strong(self.weak)

    def _declared(self, view: str, images: Tensor | None) -> Tensor:
        if images is None:
            name = f"{self.stream}.{view}"
            raise RuntimeError(f'{name} was not computed. Add "{name}" to the attribute `views` of the trainer.')
        return images


class LabeledBatch(Batch):
    """Labelled patches.

    Attributes:
        target: as nnU-Net gives it: (B, 1, *P), with regions (B, R, *P), with deep supervision a list of these.
        extra: by name what the trainer's ``labeled_steps`` computed, (B, ...) each.
    """

    stream: ClassVar[str] = "labeled"

    def __init__(
        self,
        image: Tensor | None,
        target: Tensor | list[Tensor],
        make_strong: Callable[[Tensor], Tensor] | None = None,
        valid: Tensor | None = None,
        weak: Tensor | None = None,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__(image, weak, valid, make_strong)
        self.target = target
        self.extra = dict(extra or {})


class UnlabeledBatch(Batch):
    """Unlabelled patches. There is no target in it."""

    stream: ClassVar[str] = "unlabeled"

    def __init__(
        self,
        weak: Tensor | None,
        valid: Tensor | None,
        make_strong: Callable[[Tensor], Tensor] | None = None,
        image: Tensor | None = None,
    ) -> None:
        super().__init__(image, weak, valid, make_strong)
