"""How much each class counts where two networks teach each other.

Source: CReST (Wei et al., CVPR 2021), SimiS (Chen et al., 2022) and CLD (Lin et al., MICCAI 2022) as the code published
with DHC (Wang & Li, MICCAI 2023) applies them to cross pseudo supervision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nnunet_ssl.data.class_counts import count_labels
from nnunet_ssl.losses.class_sums import sum_by_class
from nnunet_ssl.losses.class_weights import cld_keep_rates, crest_weights, simis_weights
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.distributed import sum_over_ranks

NAMES = "first", "second"  # of the two networks
MOMENTUM = 0.99  # of frequencies, DHC's code as run
CONFIDENCE_MOMENTUM = 0.999  # of CLD's confidences, as run
COLLECTED = 8  # steps over which CLD collects confidences before it enters them


class Balance:
    """Weights of the classes, or shares of their voxels that stay, of one network.

    Args:
        rule: none, crest, simis or cld; or the name of one that another method adds.
        trainer: whose labelled cases are counted.
        by_frequency: voxels of each class (K,) -> weights (K,); ``None``: the one that ``rule`` names, if any.
        momentum: of these weights from step to step.
    """

    def __init__(
        self,
        rule: str,
        trainer: nnUNetTrainerSemiSupervised,
        by_frequency: Callable[[Tensor], Tensor] | None = None,
        momentum: float = MOMENTUM,
    ) -> None:
        self.rule, self.trainer, self.momentum = rule, trainer, momentum
        self.by_frequency = by_frequency or {"crest": crest_weights, "simis": simis_weights}.get(rule)
        self.state: dict[str, Tensor] = {}

    def weights(self) -> Tensor | None:
        """(K,) of the cross-entropy; ``None``: all alike."""
        return None if self.by_frequency is None else self._started()["weights"]

    def shares(self) -> Tensor:
        """(K,) what the voxels of each class count: :meth:`weights`, or the share that :meth:`keep` lets stay."""
        weights = self.weights()
        return cld_keep_rates(self._started()["confidence"]) if weights is None else weights

    @torch.no_grad()
    def keep(self, decided: Tensor, valid: Tensor) -> Tensor:
        """Voxels (B, 1, *P) bool that stay: of a class about which the network is sure, fewer (CLD).

        Args:
            decided: (B, 1, *P) the network's own most probable class.
            valid: (B, 1, *P) bool.
        """
        return valid & (torch.rand(decided.shape, device=decided.device) < self.shares()[decided])

    @torch.no_grad()
    def observe(self, decided: Tensor, valid: Tensor, probabilities: Tensor, label: Tensor) -> None:
        """Enter one step.

        Args:
            decided, valid: (B_U, 1, *P) what the network decides on unlabelled patches, and where they are no padding.
            probabilities: (B_L, K, *P) on labelled patches.
            label: (B_L, 1, *P) int64, -1 where it does not count.
        """
        if self.by_frequency is not None:
            counts = sum_over_ranks(sum_by_class(valid.float(), decided, probabilities.shape[1]))
            self._started()["weights"].lerp_(self.by_frequency(counts), 1 - self.momentum)
        elif self.rule == "cld":
            self._collect(probabilities, label)

    def _collect(self, probabilities: Tensor, label: Tensor) -> None:
        state, classes = self._started(), probabilities.shape[1]
        index = torch.where(label < 0, classes, label).flatten()
        true = probabilities.gather(1, label.clamp(min=0)).flatten()
        sums = torch.zeros(2, classes + 1, device=true.device)
        sums[0].index_add_(0, index, true.float())
        sums[1].index_add_(0, index, torch.ones_like(true, dtype=torch.float32))
        state["collected"] += sum_over_ranks(sums[:, :classes])
        state["steps"] += 1
        full = state["steps"] >= COLLECTED
        summed, seen = state["collected"]
        mean = summed / seen.clamp(min=1)
        first = state["confidence"] < 0
        entered = torch.where(first, mean, state["confidence"].lerp(mean, 1 - CONFIDENCE_MOMENTUM))
        state["confidence"].copy_(torch.where(full & (seen > 0), entered, state["confidence"]))
        state["collected"] *= ~full
        state["steps"] *= ~full

    def _started(self) -> dict[str, Tensor]:
        """The state; counted when first asked for, since the trainer must know its fold by then."""
        if not self.state:
            device, classes = self.trainer.device, self.trainer.targets.channels
            if self.rule == "cld":  # -1: not seen yet, which keeps everything
                self.state = {
                    "confidence": torch.full((classes,), -1.0, device=device),
                    "collected": torch.zeros(2, classes, device=device),
                    "steps": torch.zeros((), device=device),
                }
            else:
                assert self.by_frequency is not None
                weights = self.by_frequency(torch.tensor(self._labelled(classes), device=device))
                if self.rule == "simis":
                    weights = MOMENTUM * classes + (1 - MOMENTUM) * weights
                self.state = {"weights": weights}
        return self.state

    def _labelled(self, classes: int) -> Sequence[float]:
        counts = count_labels(self.trainer.preprocessed_dataset_folder, self.trainer.do_split()[0])
        return [float(counts.get(value, 0)) for value in range(classes)]

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the ``state`` of a checkpoint."""
        self.state = {name: value.to(self.trainer.device) for name, value in state.items()}


def enter(
    trainer: nnUNetTrainerSemiSupervised,
    balances: Sequence[Balance],
    target: Any,
    valid: Tensor,
    decided: Sequence[Tensor],
    on_labeled: Sequence[Tensor],
) -> None:
    """What both networks say in this step changes the weights of the classes in it, which go on record.

    Args:
        trainer: in whose step it is.
        balances: of the first and the second network, as the two that follow.
        target: nnU-Net's, of the labelled patches.
        valid: (B_U, 1, *P) bool, no padding.
        decided: (B_U, 1, *P) each, the classes of unlabelled patches.
        on_labeled: (B_L, K, *P) each, logits of labelled patches.
    """
    label = finest(target)
    truth = torch.where(trainer.targets.counted(label), label, -1).long()
    for name, own, seen, balance in zip(NAMES, decided, on_labeled, balances, strict=True):
        balance.observe(own, valid, trainer.targets.probabilities(seen), truth)
        if trainer.observing:
            for k, share in enumerate(balance.shares()):
                trainer.monitor.add(f"class_weight_{name}_{k}", share)
