"""Per-epoch means of loss terms, weights and pseudo-label monitors, summed on the training device."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch import distributed as dist

from nnunet_ssl.data.batches import LabeledBatch
from nnunet_ssl.data.streams import UNKNOWN_LABEL
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import is_distributed
from nnunet_ssl.training.targets import Targets
from nnunet_ssl.training.watch import KEPT, LOSS, PULL, SHARE, WEIGHT, shares_kept

PREFIX = "ssl/"  # of the keys in nnU-Net's logger, one group in Weights & Biases
COUNT = "count_"
OBSERVE_EVERY = 10  # steps between two looks at what takes a pass over the voxels


class Monitor:
    """Collects scalars during an epoch without synchronising with the device. Read only: nothing enters a loss.

    Args:
        device: of the tensors that are added.
        targets: classes or regions of the dataset; needed to look at labels and pseudo-labels.

    Attributes:
        withheld: (B_U, 1, *P) labels of the unlabelled patches of this step, which nobody else sees, or ``None``.
    """

    def __init__(self, device: torch.device, targets: Targets | None = None) -> None:
        self.device = device
        self.withheld: Tensor | None = None
        self._targets = targets
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, Tensor | float] = {}
        self._shares: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, name: str, value: Tensor | float, count: Tensor | float = 1.0) -> None:
        """Add one observation of ``name``: a finite scalar that stands for ``count`` elements (0: nothing observed)."""
        value = value.detach() if isinstance(value, Tensor) else value
        self._sums[name] = self._sums.get(name, 0.0) + value * count
        self._counts[name] = self._counts.get(name, 0.0) + count

    def terms(self, terms: Mapping[str, Tensor]) -> None:
        """Put the weighted terms of a step on record, with their weights where these are known."""
        for name, value in terms.items():
            self.add(LOSS + name, value)
        for name, weight in getattr(terms, "weights", {}).items():
            self.add(WEIGHT + name, weight)

    def pull(self, pulls: Mapping[str, Tensor]) -> None:
        """What :func:`pull_of_terms` found; a step whose gradient is not finite says nothing."""
        for name, value in pulls.items():
            known = value.isfinite()
            self.add(PULL + name, value.nan_to_num(0.0, 0.0, 0.0), known.float())

    def kept(self, label: Tensor, keep: Tensor, valid: Tensor) -> None:
        """Of the voxels pseudo-labelled as each class, the share that enters the loss.

        Args:
            label: (B, 1, *P) pseudo-labels, or regions (B, R, *P).
            keep: (B, 1, *P) bool, or of each region (B, R, *P).
            valid: (B, 1, *P) bool, no padding.
        """
        assert self._targets is not None
        if self._targets.has_regions:
            both = zip(label.split(1, 1), keep.expand_as(label).split(1, 1), strict=True)
            for region, (inside, kept) in enumerate(both, 1):
                _, (_, share, shown) = shares_kept(inside, kept, valid, 2)
                self.add(f"{KEPT}{region}", share, shown)
            return
        for k, share, shown in shares_kept(label, keep, valid, self._targets.channels):
            self.add(f"{KEPT}{k}", share, shown)

    def pseudo_labels(self, student: Tensor, teacher: Tensor, valid: Tensor, pasted: Tensor | None = None) -> None:
        """Coverage, agreement and foreground of the pseudo-labels, and their true Dice where labels are withheld.

        Args:
            student, teacher: logits (B_U, K, *P) of the same voxels.
            valid: (B_U, 1, *P) bool.
            pasted: (B_U, 1, *P) bool, where the student saw another patch. Boxes lie near the middle, where organs are:
                without their voxels pseudo-labels would seem to lack them.
        """
        assert self._targets is not None
        for name, value in self._targets.describe(student, teacher, valid, pasted).items():
            self.add(name, value)
        if self.withheld is not None:
            known = valid & (self.withheld != UNKNOWN_LABEL)
            self.add("true_dice", *self._targets.true_dice(teacher, self.withheld, known))
        self.shares("pseudo", self._targets.decided_masks(teacher), valid)

    def labels(self, labeled: LabeledBatch) -> None:
        """Shares of foreground and of each of its classes among the annotated voxels."""
        assert self._targets is not None
        target = finest(labeled.target)
        foreground, annotated = self._targets.in_foreground(target), self._targets.counted(target)
        self.add("labeled_foreground", foreground.sum() / annotated.sum().clamp(min=1))
        self.shares("labeled", self._targets.target_masks(target), annotated)

    def shares(self, name: str, masks: Tensor, counted: Tensor) -> None:
        """Share of each foreground class (B, F, *P) among the voxels (B, 1, *P) that count."""
        assert self._targets is not None
        self._shares[name] = self._targets.shares(masks, counted)
        for k, share in enumerate(self._shares[name], 1):
            self.add(f"{SHARE}{name}_{k}", share)

    def take_shares(self) -> dict[str, Tensor]:
        """What :meth:`shares` has found since the last call, (F,) by name."""
        found, self._shares = self._shares, {}
        return found

    def epoch_means(self) -> dict[str, float]:
        """Mean of every name over the epoch and all ranks, NaN where nothing was observed; then starts afresh."""
        if not self._sums:
            return {}
        names = sorted(self._sums)
        scalars = [x for n in names for x in (self._sums[n], self._counts[n])]
        table = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=self.device) for x in scalars]).view(-1, 2)
        if is_distributed():
            dist.all_reduce(table)
        self._sums, self._counts = {}, {}
        rows = table.cpu().tolist()  # the one synchronisation of the epoch
        return {n: s / c if c > 0 else math.nan for n, (s, c) in zip(names, rows, strict=True)}
