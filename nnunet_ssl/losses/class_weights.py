"""Weights of classes from how frequent, how surely predicted or how hard to learn they are.

Source: CReST (Wei et al., CVPR 2021), SimiS (Chen et al., 2022), CLD (Lin et al., MICCAI 2022) and DHC (Wang & Li,
MICCAI 2023), each as the code published with DHC has it.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-8  # released code


def crest_weights(counts: Tensor) -> Tensor:
    """CReST: the l-th most frequent class gets the cube root of the relative frequency of the l-th rarest.

    Args:
        counts: (K,) voxels of each class, not negative.

    Returns:
        (K,) in [0, 1], 1 for the rarest class; float32 (float64 for float64 counts). Equal counts share no weight: they
        are ranked in the order of the classes.
    """
    frequency = _floating(counts)
    share = ((frequency + TINY) / (frequency.max() + TINY)) ** (1 / 3)
    order = frequency.argsort(descending=True, stable=True)
    weights = torch.empty_like(share)
    weights[order] = share[order.flip(0)]
    return weights


def simis_weights(counts: Tensor) -> Tensor:
    """SimiS: K (max P - P_c) with P the shares of the classes; exactly 0 for the most frequent one.

    Args:
        counts: (K,) voxels of each class, not negative.

    Returns:
        (K,) in [0, K].
    """
    frequency = _floating(counts)
    share = (frequency + TINY) / (frequency.sum() + TINY)
    return len(share) * (share.max() - share)


def cld_keep_rates(confidences: Tensor) -> Tensor:
    """CLD: ((1 - conf_c) / max (1 - conf))^(1/2), the probability with which a voxel of class c stays in the loss.

    Args:
        confidences: (K,) in [0, 1], mean probability of each class where it is the label.

    Returns:
        (K,) in [0, 1], 1 for the least confident class; 1 for all where every class is certain.
    """
    doubt = 1.0 - _floating(confidences).clamp(0, 1)
    largest = doubt.max()
    return torch.where(largest > 0, doubt / torch.where(largest > 0, largest, 1.0), 1.0).sqrt()


def distribution_weights(counts: Tensor, least: float = 1.0) -> Tensor:
    """DistDW of DHC: K ln P_c / max ln P with P_c = max N / N_c; exactly 0 for the most frequent class.

    Args:
        counts: (K,) voxels of each class, not negative.
        least: an absent class counts as so many voxels, so that it does not squeeze the others; 0 in the released code.

    Returns:
        (K,) in [0, K]; K for all classes where the counts are equal.
    """
    frequency = _floating(counts).clamp(min=least)
    rarity = ((frequency.max() + TINY) / (frequency + TINY)).log()
    largest = rarity.max()
    return len(rarity) * torch.where(largest > 0, rarity / torch.where(largest > 0, largest, 1.0), 1.0)


class DifficultyWeights:
    """DiffDW of DHC: classes that have lately lost in Dice, and those that are still bad, weigh more.

    With d the Dice of each class on the labelled patches of a step, Delta its change since the last one and
    g = Delta ln(d / d_prev), all averaged over about ``accumulate`` steps with the factor a = 1 - 1 / accumulate,

        learn <- a learn + (1 - a) g [Delta > 0],   unlearn <- a unlearn + (1 - a) g [Delta <= 0],
        b <- a b + (1 - a) (1 - d),   W_c = ((unlearn + 1e-8) / (learn + 1e-8))^exponent b,   W <- K W / max W.

    Source: DHC (Wang & Li, MICCAI 2023), its code.

    Args:
        classes: K.
        accumulate: 50 in the published runs.
        exponent: 1/5, released code.
        skip_first: the first step only stores d. The released code compares it with 1e-8, which dominates for about 300
            steps.
        device: of the state.
    """

    def __init__(
        self,
        classes: int,
        accumulate: int = 50,
        exponent: float = 0.2,
        skip_first: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.keep = 1 - 1 / accumulate
        self.exponent = exponent
        self.previous = torch.full((classes,), -1.0 if skip_first else TINY, device=device)  # -1: not seen yet
        self.learned, self.unlearned = torch.zeros(2, classes, device=device)
        self.badness = torch.ones(classes, device=device)

    @torch.no_grad()
    def update(self, dice: Tensor, present: Tensor | None = None) -> Tensor:
        """Enter the Dice of one step; the new weights.

        Args:
            dice: (K,) in [0, 1].
            present: (K,) bool, classes that prediction or label show; the others keep their state. ``None``: all.
        """
        dice = dice.to(self.badness)
        known = torch.ones_like(dice, dtype=torch.bool) if present is None else present
        first = self.previous < 0  # of this class
        before = torch.where(first, dice, self.previous).clamp(min=TINY)
        change = dice - before
        gain = change * (dice.clamp(min=TINY) / before).log()
        moved = known & ~first
        for state, value in (
            (self.learned, gain * (change > 0)),
            (self.unlearned, gain * (change <= 0)),
            (self.badness, 1 - dice),
        ):
            state.copy_(torch.where(moved, self.keep * state + (1 - self.keep) * value, state))
        self.previous.copy_(torch.where(known, dice, self.previous))
        return self.weights()

    def weights(self) -> Tensor:
        """(K,) in [0, K]."""
        raw = ((self.unlearned + TINY) / (self.learned + TINY)) ** self.exponent * self.badness
        return len(raw) * raw / raw.max().clamp(min=TINY)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors by name, for a checkpoint."""
        names = ("previous", "learned", "unlearned", "badness")
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`state_dict`, in place."""
        for name, value in state.items():
            getattr(self, name).copy_(value)


def _floating(values: Tensor) -> Tensor:
    """float32, or float64 where the values are; integers of more than 24 bits keep their ratios well enough."""
    return values.detach() if values.dtype == torch.float64 else values.detach().float()
