"""What the terms of a loss do in training: how hard each pulls, and what deserves a word to the person who trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

LOSS, WEIGHT, PULL, KEPT, SHARE = "loss_", "weight_", "pull_", "kept_", "share_"
GUARD = "guard"
INERT = 1e-3  # of the whole gradient
EPOCHS_OF_AN_INERT_TERM = 5
STEPS_OF_AN_EPOCH = 250  # of nnU-Net
EPOCHS_OF_A_CLASS_SHUT_OUT = 2
HELD_BACK = 0.01  # of the unlabelled weight
RUNAWAY = 2.0  # times the labels' foreground
EPOCHS_TO_LEARN = 2  # before pseudo-labels with too much foreground are no longer those of an untrained network
COLLAPSED = 0.005  # relative distance of a contrast from its value for embeddings that are all alike


def steps_to_look_at(looks: int, steps: int, epoch: int = 0) -> set[int]:
    """So many steps of an epoch, spread evenly.

    Of epochs that are shorter than nnU-Net's, behind the first few only as many as hold looks at the same distance.
    """
    if looks <= 0 or (epoch >= EPOCHS_OF_AN_INERT_TERM and epoch % epochs_between_looks(steps)):
        return set()
    return {int((i + 0.5) * steps / looks) for i in range(looks)}


def epochs_between_looks(steps: int) -> int:
    """1 for epochs of 250 steps and more; of 8 steps, as some publications have them, 32."""
    return math.ceil(STEPS_OF_AN_EPOCH / steps)


def pull_of_terms(
    terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter], scale: float | Tensor = 1.0
) -> dict[str, Tensor]:
    """Norm of each weighted term's gradient on these parameters, divided by that of their sum's.

    Leaves the graph and every gradient as they are: what follows is bit-identical to what follows without it.

    Args:
        terms: weighted scalars by name, on this rank.
        parameters: of the predicting network; frozen ones are passed over.
        scale: by which mixed precision multiplies before the backward pass.

    Returns:
        scalars by name, 0 for a term that does not reach these parameters; none for a term without a graph, such as
        the norm of the weights in LDC, whose gradient is added by hand. Where the sum has no finite gradient or none at
        all, as in a step that mixed precision skips: NaN.
    """
    trained = [p for p in parameters if p.requires_grad]
    total = [torch.zeros_like(p) for p in trained]
    norms: dict[str, Tensor] = {}
    for name, term in terms.items():
        if not term.requires_grad:
            continue
        norms[name] = term.new_zeros(())
        found = torch.autograd.grad(term * scale, trained, retain_graph=True, allow_unused=True)
        reached = [(t, g) for t, g in zip(total, found, strict=True) if g is not None]
        if reached:
            sums, gradients = ([*tensors] for tensors in zip(*reached, strict=True))
            torch._foreach_add_(sums, gradients)
            norms[name] = _norm(gradients)
    whole = _norm(total)
    return {name: norm / whole for name, norm in norms.items()}


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def shares_kept(label: Tensor, keep: Tensor, valid: Tensor, classes: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(class, share of the voxels pseudo-labelled as it that enter the loss, whether there are any) of each class.

    Args:
        label: (B, 1, *S) pseudo-labels.
        keep: (B, 1, *S) bool, what the method's filter lets through.
        valid: (B, 1, *S) bool, no padding.
        classes: K.
    """
    for k in range(classes):
        own = (label == k) & valid
        number = own.sum()
        yield k, (own & keep).sum() / number.clamp(min=1), (number > 0).float()


class Concerns:
    """Warnings in plain words about what the epochs so far have shown, each given once.

    Args:
        log: receives the words of a warning.
    """

    def __init__(self, log: Callable[..., None]) -> None:
        self.log = log
        self._given: set[str] = set()

    def consider(self, history: Mapping[str, Sequence[float]], progress: float) -> None:
        """Look at all epochs, the last one included.

        Args:
            history: what the monitor logged, one number per epoch, NaN where nothing was observed.
            progress: of training, in [0, 1].
        """
        for name, values in history.items():
            if name.startswith(LOSS):
                self._exactly_zero(name.removeprefix(LOSS), values, history)
            elif name.startswith(PULL):
                self._inert(name.removeprefix(PULL), values, history)
            elif name.startswith(KEPT):
                self._shut_out(name.removeprefix(KEPT), values, history)
            elif name.endswith("_collapse"):
                self._collapsed(name.removesuffix("_collapse"), values)
        self._held_back(history, progress)
        self._background_alone(history, progress)
        self._runaway(history, progress)

    def _exactly_zero(self, term: str, values: Sequence[float], history: Mapping[str, Sequence[float]]) -> None:
        if values[-1] == 0 and _last(history, WEIGHT + term, 1.0) > 0:
            self._once(f"zero {term}", f"The loss term {term} was exactly zero in every step of this epoch.")

    def _inert(self, term: str, values: Sequence[float], history: Mapping[str, Sequence[float]]) -> None:
        weights = history.get(WEIGHT + term, [1.0] * len(values))
        measured = [pair for pair in zip(values, weights, strict=True) if not math.isnan(pair[0])]
        recent = measured[-EPOCHS_OF_AN_INERT_TERM:]
        if len(recent) == EPOCHS_OF_AN_INERT_TERM and all(pull < INERT and weight > 0 for pull, weight in recent):
            self._once(
                f"inert {term}",
                f"The loss term {term} has done next to nothing for {EPOCHS_OF_AN_INERT_TERM} epochs: its gradient is "
                f"{recent[-1][0]:.1e} of the whole. Raise its weight, or leave it out and save its time.",
            )

    def _shut_out(self, name: str, values: Sequence[float], history: Mapping[str, Sequence[float]]) -> None:
        shown = history.get(f"{SHARE}labeled_{name}", [math.nan] * len(values))
        recent = [*zip(values, shown, strict=True)][-EPOCHS_OF_A_CLASS_SHUT_OUT:]
        # NaN: it was never predicted, which matters where the labels show it
        nothing = [kept == 0 or (math.isnan(kept) and annotated > 0) for kept, annotated in recent]
        if len(recent) == EPOCHS_OF_A_CLASS_SHUT_OUT and all(nothing) and name != "0":
            self._once(
                f"shut out {name}",
                f"No pseudo-label of class {name} has entered the loss for {EPOCHS_OF_A_CLASS_SHUT_OUT} epochs. Lower "
                "the threshold, filter each class on its own where the method can, or lengthen the warm-up.",
            )

    def _collapsed(self, term: str, values: Sequence[float]) -> None:
        if abs(values[-1]) < COLLAPSED:
            self._once(
                f"collapsed {term}",
                f"The {term} is within {COLLAPSED:.1%} of its value for embeddings that are all alike: it has not "
                "begun to tell classes apart. Train longer, or raise its weight.",
            )

    def _held_back(self, history: Mapping[str, Sequence[float]], progress: float) -> None:
        recent = history.get(GUARD, [])[-EPOCHS_OF_A_CLASS_SHUT_OUT:]
        if progress > 0.2 and len(recent) == EPOCHS_OF_A_CLASS_SHUT_OUT and max(recent) < HELD_BACK:
            names = [n.removeprefix(f"{SHARE}labeled_") for n in history if n.startswith(f"{SHARE}labeled_")]
            shares = {n: [_last(history, f"{SHARE}{of}_{n}", 0.0) for of in ("pseudo", "labeled")] for n in names}
            lacking = [n for n, (pseudo, labeled) in shares.items() if pseudo < HELD_BACK * labeled]
            self._once(
                "held back",
                f"The unlabelled weight has been held back for {EPOCHS_OF_A_CLASS_SHUT_OUT} epochs: the pseudo-labels "
                f"hardly show class {' and '.join(lacking) or 'by class what the labels show'}. It is released when "
                "they do; if that class is absent from the unlabelled images, set guard to false.",
            )

    def _background_alone(self, history: Mapping[str, Sequence[float]], progress: float) -> None:
        foreground, labeled = _last(history, "foreground", math.nan), _last(history, "labeled_foreground", math.nan)
        if progress > 0.2 and foreground < 0.02 * labeled:
            self._once(
                "background",
                f"The pseudo-labels have collapsed to background: {foreground:.2g} of the unlabelled voxels are "
                f"foreground, against {labeled:.2g} of the labelled ones. Lengthen the warm-up, or lower the weight of "
                "the unlabelled terms.",
            )

    def _runaway(self, history: Mapping[str, Sequence[float]], progress: float) -> None:
        shares = [*zip(history.get("foreground", []), history.get("labeled_foreground", []), strict=False)]
        recent = shares[EPOCHS_TO_LEARN:][-EPOCHS_OF_A_CLASS_SHUT_OUT:]
        far = [pseudo > RUNAWAY * labeled > 0 for pseudo, labeled in recent]
        if progress > 0.2 and len(recent) == EPOCHS_OF_A_CLASS_SHUT_OUT and all(far):
            pseudo, labeled = recent[-1]
            self._once(
                "runaway",
                f"The pseudo-labels show {pseudo / labeled:.1f} times the foreground of the labels: {pseudo:.2g} of "
                f"the unlabelled voxels against {labeled:.2g} of the labelled ones. If the images do not, the network "
                "learns its own false positives: lower the weight of the unlabelled terms, or keep only pseudo-labels "
                "that it is sure of.",
            )

    def _once(self, kind: str, message: str) -> None:
        if kind not in self._given:
            self._given.add(kind)
            self.log("WARNING:", message)


def _last(history: Mapping[str, Sequence[float]], name: str, default: float) -> float:
    return history[name][-1] if history.get(name) else default
