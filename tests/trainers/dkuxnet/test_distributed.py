"""DKUXNet on two gloo processes on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.trainers.dkuxnet.paper import nnUNetTrainerDKUXNet_paper
from nnunet_ssl.trainers.dkuxnet.supervised import nnUNetTrainerDKUXNetSupervised
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.trainers.uxnet import nnUNetTrainerUXNet
from nnunet_ssl.training.network import unwrap
from tests.running import make_trainer, run_ranks, seed_everything
from tests.training.test_distributed import joined_batch, part

SMALL = {"queries": 8, "query_width": 16, "pixel_width": 8, "mask_width": 4, "assignment_weight": 0.0}
LATE = {**SMALL, "warmup_fraction": 1.0}
AT_WORK = {**SMALL, "warmup_fraction": 0.0, "rampup_fraction": 0.0}
CASES = [
    (nnUNetTrainerDKUXNet, "3d_fullres", AT_WORK),
    (nnUNetTrainerDKUXNet, "2d", {**LATE, "recompute": True}),
    (nnUNetTrainerDKUXNet_paper, "2d", {**AT_WORK, "group_sizes": [4, 2, 2], "unlabeled_batch_size": 2}),
    (nnUNetTrainerDKUXNetSupervised, "2d", SMALL),
    (nnUNetTrainerUXNet, "2d", {}),
]


def started(dataset: Path, trainer_class: type, configuration: str, hyperparameters: dict[str, Any]) -> Any:
    trainer = make_trainer(dataset, trainer_class, configuration, fold="all", hyperparameters=hyperparameters)
    if trainer_class is nnUNetTrainerDKUXNet_paper:
        trainer._set_batch_size_and_oversample = lambda: setattr(trainer, "batch_size", 1)
    seed_everything(1)
    trainer.initialize()
    if trainer_class is not nnUNetTrainerUXNet:
        trainer.streams.strong_view = lambda images: images + 0.1 * torch.randn_like(images)
    return trainer


def train(dataset: Path, rank: int, *case: Any) -> list[torch.Tensor | None]:
    """Gradients of each of two steps, and the weights after them."""
    trainer = started(dataset, *case)
    assert isinstance(trainer.network, DistributedDataParallel)
    batch = joined_batch(len(trainer.configuration_manager.patch_size))
    batch["target"] = batch["target"][0]
    found: list[torch.Tensor | None] = []
    parameters = [p for p in unwrap(trainer.network).parameters() if p.requires_grad]
    for _ in range(2):  # in the second, DDP refuses what got no gradient in the first
        trainer.train_step(part(batch, slice(2 * rank, 2 * rank + 2)))
        found += [None if p.grad is None else p.grad.clone() for p in parameters]
    return [*found, *(p.detach().clone() for p in parameters)]


def query_terms(dataset: Path, rows: slice) -> list[torch.Tensor]:
    """Gradients of L_qd and L_aux, whose voxels are of different number on the ranks."""
    trainer = started(dataset, nnUNetTrainerDKUXNetSupervised, "2d", {**SMALL, "assignment_weight": 1.0})
    for module in trainer.network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    trainer.streams.strong_view = lambda images: images
    batch = joined_batch(2)
    mask = torch.ones(4, 1, 16, 16, dtype=torch.bool)
    mask[0, :, 1:], mask[1, :, :9] = False, False  # no multiple of the coarser voxels
    batch = {**batch, "extra": {"valid": mask}, "target": batch["target"][0]}
    terms = trainer.losses(*trainer.split_batch(part(batch, rows)))
    (terms["query_distribution"] + terms["assignment"] + 0 * terms["supervised"]).backward()
    return [p.grad.clone() for p in unwrap(trainer.network).parameters()]


def worker(rank: int, dataset: Path) -> Any:
    nn.SyncBatchNorm.convert_sync_batchnorm = lambda module: module  # it refuses a CPU
    return {
        "query_terms": query_terms(dataset, slice(2 * rank, 2 * rank + 2)),
        "training": [train(dataset, rank, *case) for case in CASES],
    }


@pytest.mark.slow
def test_two_ranks_learn_the_same_and_every_weight_takes_part(make_dataset, tmp_path):
    dataset = make_dataset(unlabeled=0)
    first, second = run_ranks(worker, dataset, tmp_path)
    for mine, other in zip(first["training"], second["training"], strict=True):
        assert all(a is not None and torch.equal(a, b) for a, b in zip(mine, other, strict=True))
    joined = query_terms(dataset, slice(0, 4))
    for mine, other, whole in zip(first["query_terms"], second["query_terms"], joined, strict=True):
        assert torch.equal(mine, other)
        torch.testing.assert_close(mine, whole, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_batch_norms_become_synchronised_ones():
    from nnunet_ssl.architectures.dkuxnet import DKUXNet

    net = DKUXNet(1, 3, [4, 8, 8], nn.Conv2d, 3, [1, 2, 2], 2, queries=4, query_width=16, norms="batch")
    before = [name for name, module in net.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    after = [name for name, module in converted.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    assert before == after and "predictor.temperature" in after
