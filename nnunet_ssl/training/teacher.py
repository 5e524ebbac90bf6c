"""The teacher: a frozen copy of the network whose weights are a moving average of the trained ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_ssl.training.ema import copy_buffers, update_ema
from nnunet_ssl.training.network import unwrap

Schedule = Callable[[int], float]
TEACHER = "teacher"


def constant(decay: float) -> Schedule:
    """The same decay in every step."""
    return lambda step: decay


def warmed_up(limit: float) -> Schedule:
    """min(1 - 1 / (t + 1), limit): a plain average of the first networks, then a moving one."""
    return lambda step: min(1 - 1 / (step + 1), limit)


def recent(limit: float) -> Schedule:
    """min((1 + t) / (10 + t), limit): an average over about the last tenth of training so far, then a moving one.

    For a limit near 1, which :func:`warmed_up` would reach late: until then its average is of all networks, the first
    ones included. Source: TensorFlow's ExponentialMovingAverage with ``num_updates``.
    """
    return lambda step: min((1 + step) / (10 + step), limit)


def delayed(decay: float, start: int) -> Schedule:
    """A copy of the network until step ``start``, from then on a moving average."""
    return lambda step: decay if step >= start else 0.0


class Teacher:
    """After each optimiser step: weights <- decay * weights + (1 - decay) * trained weights; buffers are copied.

    It runs without gradient and in evaluation mode. With the hyper-parameter ``predict_with`` "teacher" its weights are
    validated and saved. The trainer updates it; a method builds it in ``build_auxiliary``, returns its
    :meth:`modules` among the auxiliary ones, and calls it.

    Args:
        network: frozen copy of the network, see ``network_copy`` of the trainer.
        decay: by the number of optimiser steps taken.
        heads: further modules of which an averaged copy is kept, by the name under which they are trained.
        training_mode: it runs as in training, with dropout and the statistics of the batch.
        name: of the copy among the auxiliary modules; another one for a second teacher, which the method joins, sets to
            its mode and updates.
    """

    def __init__(
        self,
        network: nn.Module,
        decay: Schedule,
        heads: Mapping[str, nn.Module] | None = None,
        training_mode: bool = False,
        name: str = TEACHER,
    ) -> None:
        heads = heads or {}
        self.decay, self.training_mode, self.name = decay, training_mode, name
        self._built: dict[str, nn.Module] = {name: network}
        self._built |= {self.copy_of(name): copy.deepcopy(m).requires_grad_(False) for name, m in heads.items()}
        self._heads = tuple(heads)
        self._trainer: Any = None

    @staticmethod
    def copy_of(name: str) -> str:
        """Name of the averaged copy of an auxiliary module."""
        return f"{TEACHER}_{name}"

    def modules(self) -> dict[str, nn.Module]:
        """To be returned by ``build_auxiliary``."""
        return self._built

    def join(self, trainer: Any) -> None:
        """Know the trainer, whose auxiliary modules are now wrapped and on the device."""
        self._trainer = trainer

    def __call__(self, *images: Tensor) -> Any:
        """What the teacher's network returns, without gradient, in nnU-Net's mixed precision."""
        return self.run(self.name, *images)

    def head(self, name: str, *inputs: Tensor) -> Any:
        """What the averaged copy of the head ``name`` returns, without gradient."""
        return self.run(self.copy_of(name), *inputs)

    @torch.no_grad()
    def run(self, module: str, *inputs: Tensor) -> Any:
        return self._trainer.forward(self._trainer.auxiliary[module], *inputs)

    def set_mode(self) -> None:
        """At the start of an epoch."""
        for name in self._built:
            self._trainer.auxiliary[name].train(self.training_mode)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the trained weights, ``step`` optimiser steps after the start of training; with a decay of 1, rest."""
        decay, auxiliary = self.decay(step), self._trainer.auxiliary
        if decay == 1:
            return
        sources = {self.name: self._trainer.network} | {self.copy_of(name): auxiliary[name] for name in self._heads}
        for name, source in sources.items():
            averaged, trained = unwrap(auxiliary[name]), unwrap(source)
            update_ema(averaged, trained, decay)
            copy_buffers(averaged, trained)
