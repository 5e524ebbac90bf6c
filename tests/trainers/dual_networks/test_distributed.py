"""Dual Networks on two gloo processes on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.trainers.dual_networks.released import nnUNetTrainerDualNetworks_released
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from nnunet_ssl.training.network import unwrap
from tests.running import make_trainer, run_ranks, seed_everything
from tests.training.test_distributed import joined_batch, part

AGREEMENT = {"pseudo_label_weight": 0.0, "contrast_weight": 0.0}
CASES = [
    (nnUNetTrainerDualNetworks, "3d_fullres", {"dynamic_roles": True}),
    (nnUNetTrainerDualNetworks, "2d", {"sequential": True, "channel_dropout": 0.5}),
    (nnUNetTrainerDualNetworks_released, "3d_fullres", {}),
]


def started(dataset: Path, trainer_class: type, configuration: str, hyperparameters: dict[str, Any]) -> Any:
    trainer = make_trainer(dataset, trainer_class, configuration, fold="all", hyperparameters=hyperparameters)
    seed_everything(1)
    trainer.initialize()
    trainer.streams.strong_view = lambda images: images
    return trainer


def gradients(trainer: Any) -> list[torch.Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in unwrap(trainer.network).parameters() if p.requires_grad]


def train(dataset: Path, rank: int, *case: Any) -> list[Any]:
    """Gradients of each of two steps, and the weights after them."""
    trainer = started(dataset, *case)
    assert isinstance(trainer.network, DistributedDataParallel)
    batch = joined_batch(len(trainer.configuration_manager.patch_size))
    if not trainer.enable_deep_supervision:
        batch["target"] = batch["target"][0]
    found = []
    for _ in range(2):  # in the second, DDP refuses what got no gradient in the first
        trainer.train_step(part(batch, slice(2 * rank, 2 * rank + 2)))
        found += gradients(trainer)
    return [*found, *(p.detach().clone() for p in unwrap(trainer.network).parameters())]


def agreement(dataset: Path, rows: slice) -> list[torch.Tensor | None]:
    """Gradients of consistency and uncertainty, before clipping."""
    trainer = started(dataset, nnUNetTrainerDualNetworks, "3d_fullres", AGREEMENT)
    terms = trainer.losses(*trainer.split_batch(part(joined_batch(3), rows)))
    rest = 0.0 * terms["supervised_student"] + 0.0 * terms["supervised_teacher"]  # under DDP all weights take part
    (terms["consistency"] + terms["uncertainty"] + rest).backward()
    return gradients(trainer)


def worker(rank: int, dataset: Path) -> Any:
    return {
        "agreement": agreement(dataset, slice(2 * rank, 2 * rank + 2)),
        "training": [train(dataset, rank, *case) for case in CASES],
    }


@pytest.mark.slow
def test_two_ranks_learn_the_same_and_every_weight_takes_part(make_dataset, tmp_path):
    dataset = make_dataset(unlabeled=0)
    first, second = run_ranks(worker, dataset, tmp_path)
    for mine, other in zip(first["training"], second["training"], strict=True):
        assert all(a is not None and torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    # the ranks have different numbers of valid voxels
    for mine, other, joined in zip(
        first["agreement"], second["agreement"], agreement(dataset, slice(0, 4)), strict=True
    ):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine, torch.zeros_like(mine) if joined is None else joined, atol=1e-5, rtol=1e-4)
