"""The Lagrange-duality trainers on two gloo processes: equal multipliers, and constraints over the patches of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunet_ssl.trainers.ldc.trainer import LABELED, UNLABELED, nnUNetTrainerLDC
from nnunet_ssl.training.network import unwrap
from tests.running import SHORT, make_trainer, run_ranks
from tests.training.test_distributed import joined_batch, part

OPTIONS = {"norm_budget": 0.5, "value_margin": 0.1}


def build(dataset: Path) -> Any:
    trainer = make_trainer(
        dataset, nnUNetTrainerLDC, fold="all", training={**SHORT, "seed": 1}, hyperparameters=OPTIONS
    )
    trainer.initialize()
    trainer.streams.strong_view = lambda images: images
    trainer.dice_weights.weights = torch.tensor([0.4, 0.6])
    trainer.current_epoch = 1  # up the ramp
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # the same weights everywhere
        for name in ("network", "distance_head", "projection"):
            student = unwrap(trainer.network if name == "network" else trainer.auxiliary[name])
            for parameter in student.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
            teacher = "teacher" if name == "network" else f"teacher_{name}"
            for averaged, parameter in zip(trainer.auxiliary[teacher].parameters(), student.parameters(), strict=True):
                averaged.copy_(1.1 * parameter)
    trainer.auxiliary["teacher_distance_head"].conv.bias.data -= 1
    return trainer


def batch_for(trainer: Any, rows: slice) -> dict[str, Any]:
    batch = joined_batch(len(trainer.configuration_manager.patch_size))
    (step,) = trainer.labeled_steps()
    finest = batch["target"][0]
    batch["extra"]["distance"] = torch.stack([step(segmentation=sample)["distance"] for sample in finest])
    return part({**batch, "target": batch["target"][:2] if trainer.enable_deep_supervision else finest}, rows)


def linear_term(dataset: Path, rows: slice) -> Tensor:
    """Cross-entropy and volumes of the unlabelled part alone: a mean over voxels, of unequal number on the ranks."""
    trainer = build(dataset)
    trainer.dice_weights.weights = torch.zeros(2)
    trainer.dual.multipliers.volume[UNLABELED] += 0.2
    return trainer.losses(*trainer.split_batch(batch_for(trainer, rows)))["constrained_unlabeled"].detach()


def worker(rank: int, dataset: Path) -> Any:
    """Multipliers of one step, the ranks having different numbers of valid voxels, and the linear term."""
    rows = slice(2 * rank, 2 * rank + 2)
    trainer = build(dataset)
    trainer.train_step(batch_for(trainer, rows))
    return trainer.dual.multipliers.state_dict(), linear_term(dataset, rows)


@pytest.mark.slow
def test_two_ranks_constrain_the_patches_of_both(make_dataset, tmp_path):
    dataset = make_dataset(unlabeled=0)
    (multipliers, linear), (others, other_linear) = run_ranks(worker, dataset, tmp_path)
    assert linear != other_linear
    torch.testing.assert_close((linear + other_linear) / 2, linear_term(dataset, slice(0, 4)))
    joined = build(dataset)
    joined.train_step(batch_for(joined, slice(0, 4)))
    assert multipliers["norm"] > 0 and multipliers["volume_labeled"].any() and multipliers["volume_unlabeled"].any()
    assert all(torch.equal(value, others[name]) for name, value in multipliers.items())
    for name in (LABELED, UNLABELED):
        volume = joined.dual.multipliers.volume[name]
        torch.testing.assert_close(multipliers[f"volume_{name}"], volume, atol=1e-8, rtol=1e-4)
