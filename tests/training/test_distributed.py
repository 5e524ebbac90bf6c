"""Two gloo processes on the CPU: heads without use, shares of a mean, random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.training.distributed import ddp_weight
from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.network import unwrap
from tests.running import make_trainer, run_ranks


def joined_batch(dimensions: int) -> dict[str, Any]:
    """Four labelled and four unlabelled patches, the latter with different numbers of valid voxels."""
    generator = torch.Generator().manual_seed(0)
    spatial = (16,) * dimensions
    valid, everywhere = torch.ones(2, 4, 1, *spatial, dtype=torch.bool)
    valid[2, :, :9] = False
    valid[3, :, :5] = False
    coarse = tuple(s // 2 for s in spatial)
    coarsest = tuple(s // 4 for s in spatial)
    return {
        "data": torch.randn(4, 1, *spatial, generator=generator),
        "target": [torch.randint(0, 3, (4, 1, *s), generator=generator).short() for s in (spatial, coarse, coarsest)],
        "extra": {"valid": everywhere},
        "unlabeled": {"data": torch.randn(4, 1, *spatial, generator=generator), "valid": valid},
    }


def part(batch: Any, rows: slice) -> Any:
    if isinstance(batch, dict):
        return {k: part(v, rows) for k, v in batch.items()}
    if isinstance(batch, list):
        return [part(b, rows) for b in batch]
    return batch[rows]


class TwoStudents(nnUNetTrainerMeanTeacher):
    """No deep supervision, and a second network that is trained without it: heads without use in both."""

    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False

    def build_auxiliary(self) -> dict[str, torch.nn.Module]:
        return {**super().build_auxiliary(), "second": self.network_copy().requires_grad_(True)}

    def losses(self, labeled: LabeledBatch, unlabeled: UnlabeledBatch) -> dict[str, torch.Tensor]:
        second = self.forward(self.auxiliary["second"], labeled.image)
        return {**super().losses(labeled, unlabeled), "second": self.supervised_loss(second, labeled.target)}


def train_two_students(dataset: Path, rank: int) -> list[torch.Tensor]:
    """Weights of both after two whole steps, in the second of which DDP refuses what got no gradient in the first."""
    trainer = make_trainer(dataset, TwoStudents, seed=1)
    trainer.initialize()
    assert isinstance(trainer.auxiliary["second"], DistributedDataParallel)
    trainer.streams.strong_view = lambda images: images
    batch = joined_batch(3)
    batch["target"] = batch["target"][0]
    for _ in range(2):
        trainer.train_step(part(batch, slice(2 * rank, 2 * rank + 2)))
    trainer._separate_random_numbers()
    assert torch.initial_seed() == 1 + rank
    networks = (trainer.network, trainer.auxiliary["second"])
    return [p.detach().clone() for network in networks for p in unwrap(network).parameters()]


def worker(rank: int, dataset: Path) -> Any:
    share = ddp_weight(torch.tensor(float(rank + 1))).item()
    monitor = Monitor(torch.device("cpu"))
    monitor.add("x", torch.tensor(float(rank)), torch.tensor(1.0 + 2 * rank))
    return {
        "students": train_two_students(dataset, rank),
        "share": share,
        "means": monitor.epoch_means(),
    }


def test_two_students_stay_equal_and_means_are_those_of_both_ranks(make_dataset, tmp_path):
    ranks = run_ranks(worker, make_dataset(unlabeled=0), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(*(r["students"] for r in ranks), strict=True))
    assert [r["share"] for r in ranks] == [pytest.approx(2 / 3), pytest.approx(4 / 3)]
    assert [r["means"] for r in ranks] == [{"x": pytest.approx(0.75)}] * 2
