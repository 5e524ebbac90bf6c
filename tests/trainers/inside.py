"""The one place where the conformance suite knows what a trainer and its batches look like inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures import cpu_attention
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.network import unwrap


def let_pytorch_draw_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention with dropout on a CPU as PyTorch has it, random numbers included."""

    def attend(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=1.0)

    monkeypatch.setattr(cpu_attention, "attention_in_blocks", attend)


def terms_of(trainer: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The weighted terms of one batch of the loader, with their graphs; ``supervised`` alone for nnU-Net's step."""
    if isinstance(trainer, nnUNetTrainerSemiSupervised):
        return trainer.losses(*trainer.split_batch(batch))
    return {"supervised": trainer.loss(trainer.network(batch["data"]), batch["target"])}


def networks(trainer: Any) -> dict[str, nn.Module]:
    """`self.network` as "network", then what is trained or kept beside it by the name it has in the checkpoint."""
    return {"network": trainer.network, **getattr(trainer, "auxiliary", {})}


def parameters(trainer: Any) -> dict[str, nn.Parameter]:
    """All parameters, without wrappers and each once, by the name of the network and their name in it."""
    return {
        f"{name}.{key}": parameter
        for name, module in networks(trainer).items()
        for key, parameter in unwrap(module).named_parameters()
    }


def without_chance(trainer: Any) -> None:
    """No photometric change of the strong view; norms of the batch do not depend on it."""
    if isinstance(trainer, nnUNetTrainerSemiSupervised):
        trainer.streams.strong_view = lambda images: images
    for module in trainer.network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()


def mark_padding(batch: dict[str, Any], rows: tuple[int, int]) -> None:
    """The first planes of two patches of each stream become padding, a different number of them in each."""
    for row, planes in zip(rows, (9, 5), strict=True):
        if "unlabeled" in batch:
            batch["unlabeled"]["valid"][row, :, :planes] = False
        if "extra" in batch:
            batch["extra"]["valid"][row, :, : planes - 2] = False


def images_of(batch: dict[str, Any]) -> dict[str, list[Tensor]]:
    """The images of both streams as the loader gives them, of each stream in one view or in two."""
    unlabeled = batch.get("unlabeled", {})
    found = {"labeled": (batch["data"], batch.get("extra", {})), "unlabeled": (unlabeled.get("data"), unlabeled)}
    return {
        stream: [images, *(named[view] for view in ("weak",) if view in named)]
        for stream, (images, named) in found.items()
        if images is not None
    }


def shared_state(trainer: Any) -> dict[str, Tensor]:
    """What all ranks must agree on, beside the networks and memories: multipliers, counted classes, their weights."""
    state = dict(trainer.dual.multipliers.state_dict()) if hasattr(trainer, "dual") else {}
    if isinstance(trainer, nnUNetTrainerSemiSupervised):
        state |= {k: torch.tensor(v) for k, v in trainer.guard.state().items()}
    for balance in getattr(trainer, "balances", []):
        state |= {f"{balance.rule} {name}": value for name, value in balance.state.items()}
    return state | ({"counted": trainer.keep_probability()} if hasattr(trainer, "keep_probability") else {})


def compile_on_the_cpu(trainer: Any) -> None:
    trainer._do_i_compile = lambda: True


def disturb_copies(trainer: Any) -> None:
    """Frozen copies differ from what they are copies of, by a factor; distances of the teacher show objects."""
    with torch.no_grad():
        for module in networks(trainer).values():
            for parameter in module.parameters():
                if not parameter.requires_grad and parameter.ndim > 1:
                    parameter.mul_(1.1)
        if "teacher_distance_head" in networks(trainer):
            networks(trainer)["teacher_distance_head"].conv.bias -= 3


def in_second_step(trainer: Any) -> Any:
    """The trainer, begun and with its first step behind it as far as schedules know."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.step = 1
    return trainer


def batch_of(trainer: Any) -> tuple[Any, Any]:
    """The labelled and the unlabelled part of the next batch."""
    return trainer.split_batch(next(trainer.dataloader_train))
