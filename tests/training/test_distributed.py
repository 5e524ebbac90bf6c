"""Two gloo processes on the CPU give the gradients of one process with the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.training.distributed import ddp_weight
from nnunet_ssl.training.monitor import Monitor
from nnunet_ssl.training.network import unwrap
from tests.running import make_trainer, run_ranks, seed_everything

TRAINERS = {c.__name__: c for c in (nnUNetTrainerSupervised, nnUNetTrainerMeanTeacher)}


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


def gradients(trainer: Any, batch: dict[str, Any]) -> list[torch.Tensor | None]:
    """Gradients of one step before clipping."""
    if isinstance(trainer, nnUNetTrainerMeanTeacher):
        trainer.streams.strong_view = lambda images: images
        trainer.step = trainer.num_iterations_per_epoch  # well up the ramp
        labeled, unlabeled = trainer.split_batch(batch)
        assert isinstance(labeled, LabeledBatch) and isinstance(unlabeled, UnlabeledBatch)
        terms = trainer.losses(labeled, unlabeled)
        sum(terms.values()).backward()
    else:
        trainer.loss(trainer.network(batch["data"]), batch["target"]).backward()
    return [None if p.grad is None else p.grad.clone() for p in unwrap(trainer.network).parameters()]


def build(dataset: Path, name: str, configuration: str) -> Any:
    hyperparameters = {"noise_std": 0.0, "consistency_weight": 100.0} if "MeanTeacher" in name else None
    trainer = make_trainer(dataset, TRAINERS[name], configuration, hyperparameters=hyperparameters)
    seed_everything(1)
    trainer.initialize()
    if "MeanTeacher" in name:
        with torch.no_grad():  # a teacher that disagrees
            for parameter in trainer.auxiliary["teacher"].parameters():
                parameter.mul_(1.5)
    return trainer


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


def train_skcdf(dataset: Path, rank: int, configuration: str, hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Gradients of two whole steps, the weights after both, the keep probabilities.

    Not compared with one process: a Dice summed over the batch of a rank is not that of the joined batch, and each rank
    draws its own masks and context.
    """
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF, configuration, fold="all", hyperparameters=hyperparameters)
    trainer.initialize()
    assert isinstance(trainer.network, DistributedDataParallel)
    trainer.streams.strong_view = lambda images: images
    seed_everything(rank)  # other masks on each rank
    batch = part(joined_batch(len(trainer.configuration_manager.patch_size)), slice(2 * rank, 2 * rank + 2))
    found: dict[str, Any] = {"keep": trainer.keep_probability(), "gradients": []}
    for _ in range(2):
        trainer.train_step(batch)
        found["gradients"].append([None if p.grad is None else p.grad.clone() for p in trainer.network.parameters()])
    network = unwrap(trainer.network)
    return {**found, "weights": [p.detach().clone() for p in network.parameters()]}


SKCDF = [
    ("3d_fullres", {}),
    ("2d", {"decoupling": False, "context_samples": 1}),
    ("3d_fullres", {"complementarity": False, "balanced_heads": False, "inference_decoder": "labeled"}),
]
CASES = [
    ("nnUNetTrainerSupervised", "3d_fullres"),
    ("nnUNetTrainerMeanTeacher", "3d_fullres"),
    ("nnUNetTrainerMeanTeacher", "2d"),
]


def worker(rank: int, dataset: Path) -> Any:
    found = {}
    for name, configuration in CASES:
        trainer = build(dataset, name, configuration)
        assert trainer.device.type == "cpu"
        assert isinstance(trainer.network, DistributedDataParallel)
        batch = joined_batch(len(trainer.configuration_manager.patch_size))
        found[name, configuration] = gradients(trainer, part(batch, slice(2 * rank, 2 * rank + 2)))
    share = ddp_weight(torch.tensor(float(rank + 1))).item()
    monitor = Monitor(torch.device("cpu"))
    monitor.add("x", torch.tensor(float(rank)), torch.tensor(1.0 + 2 * rank))
    return {
        "students": train_two_students(dataset, rank),
        "skcdf": [train_skcdf(dataset, rank, *case) for case in SKCDF],
        "gradients": found,
        "share": share,
        "means": monitor.epoch_means(),
    }


def test_two_ranks_equal_one_process_with_the_joined_batch(make_dataset, tmp_path):
    dataset = make_dataset(unlabeled=0)
    ranks = run_ranks(worker, dataset, tmp_path)
    for name, configuration in CASES:
        trainer = build(dataset, name, configuration)
        reference = gradients(trainer, joined_batch(len(trainer.configuration_manager.patch_size)))
        coarsest = {id(p) for p in trainer.network.decoder.seg_layers[0].parameters()}
        for index, parameter in enumerate(trainer.network.parameters()):
            first, second = (r["gradients"][name, configuration][index] for r in ranks)
            assert first is not None, "unused parameter under DDP"
            assert torch.equal(first, second)
            if id(parameter) not in coarsest:  # weight 1e-6 under DDP, 0 without
                torch.testing.assert_close(first, reference[index], atol=1e-5, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(*(r["students"] for r in ranks), strict=True))
    for first, second in zip(*(r["skcdf"] for r in ranks), strict=True):
        assert torch.equal(first["keep"], second["keep"]) and first["keep"].max() == 1
        for mine, other in zip(
            [first["weights"], *first["gradients"]], [second["weights"], *second["gradients"]], strict=True
        ):
            assert all(a is not None and torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    assert [r["share"] for r in ranks] == [pytest.approx(2 / 3), pytest.approx(4 / 3)]
    assert [r["means"] for r in ranks] == [{"x": pytest.approx(0.75)}] * 2
