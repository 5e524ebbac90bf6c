"""Classes or regions: what nnU-Net's targets and a network's logits say about voxels, the same questions for both."""

from __future__ import annotations

from typing import Any

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunet_ssl.losses.pseudo_label import pseudo_cross_entropy, pseudo_dice
from nnunet_ssl.losses.regions import as_two_classes, for_each_region
from nnunet_ssl.training.distributed import ddp_weight

CONFIDENT = 0.95  # USB's threshold for pseudo-labels (FixMatch, NeurIPS 2020, Table 2)


class Targets:
    """A dataset's labels: K exclusive classes, the first one background, or R overlapping regions; F in foreground.

    Targets are as nnU-Net's loader gives them: (B, 1, *S) label maps, or (B, R, *S) regions, behind which the ignore
    label, where there is one, is a last channel; with deep supervision a list of these. Logits are (B, K, *S) or
    (B, R, *S).

    Attributes:
        channels: K or R, those of the logits.
        foreground: the label values of each foreground class or region, in the order of the channels.
    """

    def __init__(self, labels: LabelManager) -> None:
        self.has_regions: bool = labels.has_regions
        self.ignore_label: int | None = labels.ignore_label
        self.channels: int = labels.num_segmentation_heads
        found = labels.foreground_regions if labels.has_regions else labels.foreground_labels
        self.foreground = [tuple(int(v) for v in c) if isinstance(c, (tuple, list)) else (int(c),) for c in found]

    # ---- of a target

    def labels(self, target: Any) -> Any:
        """The label maps (B, 1, *S), or the regions (B, R, *S) without the ignore label; of a list, a list."""
        if isinstance(target, list):
            return [self.labels(t) for t in target]
        return target[:, : self.channels] if self.has_regions else target

    def annotated(self, target: Any) -> Any:
        """Where a target is no ignore label, (B, 1, *S) bool; of a list, a list. ``None`` without such a label."""
        if self.ignore_label is None:
            return None
        if isinstance(target, list):
            return [self.annotated(t) for t in target]
        return target[:, -1:] == 0 if self.has_regions else target != self.ignore_label

    def counted(self, target: Tensor) -> Tensor:
        """As :meth:`annotated` of one target, all true without an ignore label."""
        annotated = self.annotated(target)
        return torch.ones_like(target[:, :1], dtype=torch.bool) if annotated is None else annotated

    def in_foreground(self, target: Tensor) -> Tensor:
        """Where a target is annotated as any foreground, (B, 1, *S) bool."""
        return (self.labels(target) > 0).any(1, keepdim=True) & self.counted(target)

    @torch.no_grad()
    def masks_of(self, label: Tensor) -> Tensor:
        """Foreground channels (B, F, *S) bool of a label map (B, 1, *S)."""
        # comparing with Python numbers, since a tensor of them would have to travel to the device
        return torch.cat([torch.stack([label == v for v in values]).any(0) for values in self.foreground], 1)

    @torch.no_grad()
    def target_masks(self, target: Tensor) -> Tensor:
        """Foreground channels (B, F, *S) bool of one target."""
        return self.labels(target) > 0 if self.has_regions else self.masks_of(target)

    @torch.no_grad()
    def shares(self, masks: Tensor, counted: Tensor) -> Tensor:
        """(F,) share of the counted voxels (B, 1, *S) that each foreground class (B, F, *S) has."""
        return (masks & counted).sum([0, *range(2, masks.ndim)]) / counted.sum().clamp(min=1)

    # ---- of logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax, or sigmoids of regions, in float32; with their gradient."""
        return logits.float().sigmoid() if self.has_regions else logits.float().softmax(1)

    def foreground_probability(self, logits: Tensor) -> Tensor:
        """(B, 1, *S), of any foreground class, or of the most probable region."""
        probabilities = self.probabilities(logits)
        return probabilities.amax(1, keepdim=True) if self.has_regions else 1 - probabilities[:, :1]

    @torch.no_grad()
    def decide(self, logits: Tensor) -> Tensor:
        """The pseudo-label: the most probable class (B, 1, *S) int64, or the regions entered (B, R, *S) bool."""
        return logits > 0 if self.has_regions else hard_labels(logits)

    @torch.no_grad()
    def confidence(self, logits: Tensor) -> Tensor:
        """Probability of the decision, (B, 1, *S); of regions, of the least certain one."""
        probabilities = self.probabilities(logits)
        if self.has_regions:
            return torch.maximum(probabilities, 1 - probabilities).amin(1, keepdim=True)
        return probabilities.amax(1, keepdim=True)

    @torch.no_grad()
    def pseudo_label(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(:meth:`decide`, its probability): (B, 1, *S) each, or of every region on its own (B, R, *S)."""
        return self.decided(self.probabilities(logits))

    @torch.no_grad()
    def decided(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`pseudo_label` of probabilities (B, K, *S) or (B, R, *S)."""
        if self.has_regions:
            return probabilities > 0.5, torch.maximum(probabilities, 1 - probabilities)
        confidence, label = probabilities.max(1, keepdim=True)
        return label, confidence

    def pseudo_supervision(
        self,
        loss: str,
        logits: Tensor,
        label: Tensor,
        keep: Tensor,
        valid: Tensor,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """Supervision by hard labels of the kept voxels; of regions, the mean over them as problems of two classes.

        Args:
            loss: one of ``PSEUDO_LOSSES``.
            logits: receives the gradient.
            label: as :meth:`pseudo_label` gives it, or annotated labels as :meth:`labels` does.
            keep: bool, (B, 1, *S), or of each region (B, R, *S).
            valid: (B, 1, *S) bool, no padding.
            class_weight: (K,) of the cross-entropy, not for regions; ``None`` weighs all classes alike.

        Returns:
            scalar; its cross-entropy is this rank's part of the mean over the valid voxels of all ranks, or of the
            weighted mean over the kept ones, which every rank must ask for; its Dice is of this rank's batch.
        """
        problems = [(logits, label, keep)]
        if self.has_regions:
            regions = zip(*(maps.split(1, 1) for maps in (logits, label, keep.expand_as(logits))), strict=True)
            problems = [(as_two_classes(z), y, k) for z, y, k in regions]
        parts = []
        kinds = loss.split("+")
        if "ce" in kinds:
            counted = valid
            if class_weight is not None:
                counted = class_weight[torch.where(keep, label, 0).long()] * (keep & valid)
            share = ddp_weight(counted.sum())
            parts += [pseudo_cross_entropy(*problem, valid, class_weight) * share for problem in problems]
        if "dice" in kinds:
            parts += [pseudo_dice(*problem) for problem in problems]
        return torch.stack(parts).sum() / len(problems)

    @torch.no_grad()
    def decided_masks(self, logits: Tensor) -> Tensor:
        """Foreground channels (B, F, *S) bool of the decision."""
        decided = self.decide(logits)
        if self.has_regions:
            return decided
        classes = torch.arange(1, self.channels, device=logits.device)
        return decided == classes.view(1, -1, *[1] * (logits.ndim - 2))

    # ---- regions as problems of two classes each, for losses written for a softmax

    def as_classes(self, logits: Tensor) -> Tensor:
        """Logits of exclusive classes: as they are, or of R regions (B * R, 2, *S)."""
        return as_two_classes(logits) if self.has_regions else logits

    def as_maps(self, volume: Tensor) -> Tensor:
        """A map (B, 1, *S) for :meth:`as_classes`: as it is, or (B * R, 1, *S)."""
        return for_each_region(volume, self.channels) if self.has_regions else volume

    def as_labels(self, labels: Tensor) -> Tensor:
        """Labels (B, 1, *S), or regions (B, R, *S) -> (B * R, 1, *S), for :meth:`as_classes`."""
        return labels.flatten(0, 1).unsqueeze(1) if self.has_regions else labels

    # ---- what is worth knowing about pseudo-labels; nothing of it enters a loss

    @torch.no_grad()
    def describe(
        self, student: Tensor, teacher: Tensor, valid: Tensor, pasted: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Coverage, agreement and foreground fraction over the valid voxels.

        Args:
            student, teacher: logits of the same voxels; the pseudo-label is the teacher's decision.
            valid: (B, 1, *S) bool.
            pasted: (B, 1, *S) bool, where the student saw another patch; left out of the agreement. ``None``: nowhere.

        Returns:
            scalars ``coverage`` (share decided with at least 0.95 confidence), ``agreement`` (share on which both
            decide alike) and ``foreground`` (share decided as any foreground class).
        """
        decided, other = self.decided_masks(teacher), self.decided_masks(student)
        count, shared = valid.sum().clamp(min=1), valid if pasted is None else valid & ~pasted
        return {
            "coverage": ((self.confidence(teacher) >= CONFIDENT) & valid).sum() / count,
            "agreement": ((decided == other).all(1, keepdim=True) & shared).sum() / shared.sum().clamp(min=1),
            "foreground": (decided.any(1, keepdim=True) & valid).sum() / count,
        }

    @torch.no_grad()
    def true_dice(self, teacher: Tensor, label: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """(mean Dice of the pseudo-labels over the classes that occur, number of these classes).

        Args:
            teacher: logits.
            label: (B, 1, *S) withheld label map.
            known: (B, 1, *S) bool, true where a withheld label exists and the voxel is not padding.
        """
        if self.ignore_label is not None:
            known = known & (label != self.ignore_label)
        return mean_dice(self.masks_of(label) & known, self.decided_masks(teacher) & known)


@torch.no_grad()
def hard_labels(logits: Tensor) -> Tensor:
    """The most probable class (B, 1, *S), int64, of logits (B, K, *S)."""
    return logits.max(1, keepdim=True).indices  # on a CPU ten times faster than argmax over this axis


@torch.no_grad()
def mean_dice(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(mean Dice of two sets of masks (B, F, *S) bool over the classes that either shows, number of these classes)."""
    everywhere = [0, *range(2, first.ndim)]
    dice = 2.0 * (first & second).sum(everywhere) / (first.sum(everywhere) + second.sum(everywhere))  # 0 / 0: NaN
    return dice.nanmean().nan_to_num(), (~dice.isnan()).sum()
