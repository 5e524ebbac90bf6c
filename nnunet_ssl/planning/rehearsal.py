"""What a training step costs, in operations and memory, before anything has been trained: from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from nnunet_ssl.architectures.recompute import settle
from nnunet_ssl.planning.counted_step import CountedStep
from nnunet_ssl.planning.shapes_alone import META, HalfPrecision, ShapesAlone
from nnunet_ssl.planning.stand_in import make_trainer, stand_in_folders, training_batch
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.monitor import OBSERVE_EVERY
from nnunet_ssl.training.network import unwrap


@dataclass(frozen=True)
class StepCost:
    """Of one training step in the middle of training, with every term at work.

    Attributes:
        forward, backward: floating-point operations, see :class:`CountedStep`, in a step that is not observed.
        resident: bytes that stay between steps: weights of all networks, their gradients, the optimiser's state.
        peak: most bytes alive at once, ``resident`` included, over all kinds of steps.
        images: patches per step, labelled and unlabelled.
        reads: how often the host read from the device in the step.
    """

    forward: int
    backward: int
    resident: int
    peak: int
    images: int
    reads: int

    @property
    def operations(self) -> int:
        return self.forward + self.backward

    @property
    def kept(self) -> int:
        """Bytes that the step itself needs: activations kept for the backward pass, and what lies beside them."""
        return self.peak - self.resident


def rehearse(
    trainer: type,
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    *,
    patches: int | None = None,
    mixed_precision: bool = True,
) -> StepCost:
    """Steps of a trainer on the meta device, where nothing is computed.

    Args:
        trainer: nnU-Net's own or one of this package.
        plans, configuration, dataset_json: of nnU-Net.
        patches: labelled ones per step; None: the plans' batch size.
        mixed_precision: with fused attention, and activations computed again where that is for a GPU alone, as on
            CUDA; otherwise float32 without either, as on a CPU.

    Raises:
        NotImplementedError, SemiSupervisedError: as the trainer, for plans that it does not support.
    """
    device, shapes = torch.device(META), ShapesAlone(fused_attention=mixed_precision)
    with ExitStack() as stack:
        stack.enter_context(stand_in_folders(plans, configuration))
        stack.enter_context(torch.random.fork_rng(devices=[]))
        counted = stack.enter_context(CountedStep(META))
        stack.enter_context(shapes)
        made = make_trainer(trainer, plans, configuration, dataset_json, device)
        settle(unwrap(made.network), wanted=mixed_precision)
        if mixed_precision and _wants_half(made):
            _in_half_precision(made, stack.enter_context(HalfPrecision()))
        batch = training_batch(made, patches or made.batch_size, device)
        _make_state(made.optimizer)
        for step in kinds_of_steps(made):
            resident, shapes.reads, counted.forward, counted.backward = counted.now, 0, 0, 0
            made.step = step
            made.train_step(batch)
        cost = StepCost(counted.forward, counted.backward, resident, counted.peak, images_of(batch), shapes.reads)
    return cost


def kinds_of_steps(trainer: Any) -> list[int]:
    """A step that is observed, one in which the pull of each term is measured, and last one of all others."""
    if not isinstance(trainer, nnUNetTrainerSemiSupervised):
        return [1]
    looks = trainer.steps_with_a_look()
    plain = next((i for i in range(1, OBSERVE_EVERY) if i not in looks), 1)
    return [0, *sorted(looks)[:1], plain]


def images_of(batch: Mapping[str, Any]) -> int:
    """Patches of a step, labelled and unlabelled."""
    return len(batch["data"]) + (len(batch["unlabeled"]["data"]) if "unlabeled" in batch else 0)


def _make_state(optimizer: torch.optim.Optimizer) -> None:
    """What the optimiser keeps from its first step on."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.step = _rest  # type: ignore[method-assign, assignment]  # it goes tensor by tensor: no peak


def _rest(*_: Any) -> None:
    pass


def _wants_half(trainer: Any) -> bool:
    recipe = getattr(trainer, "recipe_in_force", None)
    return recipe is None or recipe.mixed_precision


def _in_half_precision(trainer: Any, half: HalfPrecision) -> None:
    """Wherever the trainer asks for nnU-Net's mixed precision."""
    if isinstance(trainer, nnUNetTrainerSemiSupervised):
        trainer.mixed_precision = half.on  # type: ignore[method-assign]
        return
    for module in (trainer.network, trainer.loss):
        module.forward = _within(half, module.forward)


def _within(half: HalfPrecision, call: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        with half.on():
            return call(*args, **kwargs)

    return forward
