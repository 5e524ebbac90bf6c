"""From a batch of images and confidence maps to attended patches of every class.

Source: PLGCL (Basak & Yin, CVPR 2023), Sec. 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunet_ssl.trainers.plgcl.confidence_maps import class_probabilities, joint_probabilities, label_probabilities
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid
from nnunet_ssl.trainers.plgcl.patch_sampling import (
    MIN_SHARE,
    MIN_VOXELS,
    Selection,
    cut_attended,
    score_windows,
    select_windows,
    window_sums,
)
from nnunet_ssl.trainers.plgcl.rescale_intensity import Range, from_unit, intensity_range, to_unit
from nnunet_ssl.training.deep_supervision import finest


class Patches(NamedTuple):
    """N = M (n + 1) patches of M classes, the anchor of each class first; fillers are not valid.

    Attributes:
        unit: (N, C, *P) attended, in [0, 1].
        low, high: (N, C), ends of the image's range.
        classes: (N,) int64.
        valid: (N,) bool.
    """

    unit: Tensor
    low: Tensor
    high: Tensor
    classes: Tensor
    valid: Tensor

    def images(self) -> Tensor:
        """In the network's units: what is not attended has the darkest value, not the mean."""
        return from_unit(self.unit, self.low, self.high)


@dataclass
class PatchSampler:
    """Chooses patches of every class that are alike; the choices come from a generator of its own.

    Attributes:
        grid: the windows of an image.
        ranges: see :func:`fixed_ranges`.
        labels: nnU-Net's label manager of the dataset.
        generator: on the training device.
        neighbours, max_classes, anchor, similarity, min_voxels, min_share: see :func:`select_windows`.
    """

    grid: PatchGrid
    ranges: Sequence[Range]
    labels: LabelManager
    generator: torch.Generator
    neighbours: int = 20
    max_classes: int = 8
    anchor: str = "confidence"
    similarity: str = "entropy"
    min_voxels: int = MIN_VOXELS
    min_share: float = MIN_SHARE

    @property
    def classes(self) -> int:
        """K, with regions counting the background that they lack."""
        return self.labels.num_segmentation_heads + self.labels.has_regions

    def confidence(self, logits: Tensor) -> Tensor:
        """C (B, K, *S) of a network's logits."""
        return class_probabilities(logits, self.labels.has_regions)

    def true_confidence(self, target: Tensor | list[Tensor], guess: Tensor | None = None) -> Tensor:
        """C (B, K, *S) of ground truth, and the guess (B, K, *S) at ignored voxels."""
        labels = self.labels
        return label_probabilities(finest(target), self.classes, labels.has_regions, labels.ignore_label, guess)

    def joint_confidence(self, target: Tensor | list[Tensor], logits: Tensor, guess: Tensor | None = None) -> Tensor:
        """C (B_L + B_U, K, *S): ground truth, with a guess at ignored voxels, then a network's logits."""
        labels = self.labels
        return joint_probabilities(finest(target), logits, labels.has_regions, labels.ignore_label, guess)

    @torch.no_grad()
    def sample(self, images: Tensor, confidence: Tensor, valid: Tensor) -> tuple[Patches, Tensor]:
        """Patches of every class, and how many windows of each class could have been chosen, (K,) int64.

        Args:
            images: (B, C, *S), normalised.
            confidence: (B, K, *S).
            valid: (B, 1, *S) bool, false where a voxel is padding.
        """
        low, high = intensity_range(images, self.ranges)
        unit = to_unit(images, low, high)
        chosen = self._select(unit, confidence, valid)
        windows, image = chosen.windows.flatten(), chosen.windows.flatten() // self.grid.number
        classes = chosen.classes.repeat_interleave(chosen.windows.shape[1])
        attended = cut_attended(unit, confidence, self.grid, windows, classes)
        return Patches(attended, low[image], high[image], classes, chosen.valid.flatten()), chosen.candidates

    @torch.no_grad()
    def purity(self, images: Tensor, target: Tensor | list[Tensor], guess: Tensor) -> tuple[Tensor, Tensor]:
        """(share of the windows chosen by a guess that do show their class, number of these windows).

        Args:
            images: (B, C, *S), labelled.
            target: as nnU-Net gives it; where a label is ignored, nothing counts.
            guess: C (B, K, *S) of a network.
        """
        truth = self.true_confidence(target, torch.zeros_like(guess))
        unit = to_unit(images, *intensity_range(images, self.ranges))
        chosen = self._select(unit, guess, truth.amax(1, keepdim=True))
        voxels = window_sums(truth, self.grid).transpose(0, 1).flatten(1)[chosen.classes]
        pure = (voxels.gather(1, chosen.windows) >= MIN_VOXELS) & chosen.valid
        number = chosen.valid.sum()
        return pure.sum() / number.clamp(min=1), number

    def _select(self, unit: Tensor, confidence: Tensor, valid: Tensor) -> Selection:
        scores = score_windows(unit, confidence, valid, self.grid, self.labels.has_regions)
        return select_windows(
            scores, unit, confidence, self.grid, self.generator,
            neighbours=self.neighbours, max_classes=self.max_classes, anchor=self.anchor, similarity=self.similarity,
            min_voxels=self.min_voxels, min_share=self.min_share,
        )  # fmt: skip
