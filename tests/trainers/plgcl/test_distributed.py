"""PLGCL on two gloo processes: equal memories, and the gradients of one process that sees the patches of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.trainers.plgcl import trainer as plgcl
from nnunet_ssl.trainers.plgcl.key_views import key_views
from nnunet_ssl.trainers.plgcl.patch_sampler import Patches
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.network import unwrap
from tests.running import SHORT, make_trainer, run_ranks
from tests.training.test_distributed import joined_batch, part

OPTIONS = {
    "warmup_epochs": 1,
    "min_keys": 2,
    "memory_size": 25,
    "embedding_size": 8,
    "neighbours": 4,  # so few that the windows do not overlap, with the images of one rank or of both
    "contrast_weight": 1.0,
    "covariance_schedule": "constant",
}
CASES = [
    ("3d_fullres", {}),
    ("2d", {"class_balanced": True, "queries": "anchor", "key_encoder": "student"}),
]


def build(dataset: Path, configuration: str, options: dict[str, Any]) -> nnUNetTrainerPLGCL:
    trainer = make_trainer(
        dataset, nnUNetTrainerPLGCL, configuration, training={**SHORT, "seed": 1}, hyperparameters=OPTIONS | options
    )
    trainer.initialize()
    trainer.streams.strong_view = lambda images: images
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # the same weights everywhere, and a teacher that disagrees
        for module in (unwrap(trainer.network), unwrap(trainer.auxiliary["head"])):
            for parameter in module.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        for name, student in (("teacher", trainer.network), ("teacher_head", trainer.auxiliary["head"])):
            unwrap(trainer.auxiliary[name]).load_state_dict(unwrap(student).state_dict())
            for parameter in unwrap(trainer.auxiliary[name]).parameters():
                parameter.mul_(1.1)
    return trainer


def batch_for(trainer: nnUNetTrainerPLGCL) -> dict[str, Any]:
    batch = joined_batch(len(trainer.configuration_manager.patch_size))
    batch["extra"]["weak"] = batch["data"]
    batch["target"][0][:2] = 0  # the labelled images of the first rank show background alone
    return batch


def state_of(trainer: nnUNetTrainerPLGCL) -> dict[str, Any]:
    modules = (unwrap(trainer.network), unwrap(trainer.auxiliary["head"]))
    return {
        "gradients": [None if p.grad is None else p.grad.clone() for m in modules for p in m.parameters()],
        "memory": {k: v.clone() for k, v in unwrap(trainer.auxiliary["memory"]).state_dict().items()},
    }


def two_steps(trainer: nnUNetTrainerPLGCL, batch: Any) -> list[dict[str, Any]]:
    """A warm-up step that fills the memory, without the head; then the first step with it, as `losses` does both."""
    found = []
    for epoch in (0, 1):
        trainer.current_epoch, trainer.step = epoch, 1  # the first one draws for the purity too
        trainer.network.zero_grad(), trainer.auxiliary["head"].zero_grad()
        sum(trainer.losses(*trainer.split_batch(batch)).values()).backward()
        found.append(state_of(trainer))
    return found


def on_rank(trainer: nnUNetTrainerPLGCL, rank: int) -> list[dict[str, Any]]:
    """The two steps on this rank's part of the batch, with patches and key views of its own."""
    trainer.sampler.generator.manual_seed(rank)
    return two_steps(trainer, part(batch_for(trainer), slice(2 * rank, 2 * rank + 2)))


def in_one_process(trainer: nnUNetTrainerPLGCL, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The terms of the joined batch; the patches are those that each rank would choose among its own images."""
    batch = batch_for(trainer)
    generators = [torch.Generator().manual_seed(rank) for rank in (0, 1)]
    sample, halves = trainer.sample_patches, []

    def of_both(labeled: Any, unlabeled: Any, teacher: torch.Tensor) -> Patches:
        halves[:] = []
        for rank, rows in enumerate((slice(0, 2), slice(2, 4))):
            trainer.sampler.generator = generators[rank]
            mine = trainer.split_batch(part(batch, rows))
            halves.append(sample(*mine, teacher[rows]))
        return Patches(*(torch.cat(both) for both in zip(*halves, strict=True)))

    def views_of_both(patches: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return torch.cat([key_views(half.unit, g) for half, g in zip(halves, generators, strict=True)])

    trainer.sample_patches = of_both
    monkeypatch.setattr(plgcl, "key_views", views_of_both)
    return two_steps(trainer, batch)


def worker(rank: int, dataset: Path) -> Any:
    found = []
    for case in CASES:
        trainer = build(dataset, *case)
        assert isinstance(trainer.auxiliary["head"], DistributedDataParallel)
        seed = trainer.sampler.generator.initial_seed()
        found.append((seed, trainer.grid, on_rank(trainer, rank)))
    return found


@pytest.mark.slow
def test_two_ranks_equal_one_process(make_dataset, tmp_path, monkeypatch):
    dataset = make_dataset(unlabeled=0)
    ranks, others = run_ranks(worker, dataset, tmp_path)
    for case, (seed, grid, mine), (other_seed, _, theirs) in zip(CASES, ranks, others, strict=True):
        assert seed != other_seed
        trainer = build(dataset, *case)
        reference = in_one_process(trainer, monkeypatch)
        assert trainer.grid == grid
        coarsest = {id(p) for p in trainer.network.decoder.seg_layers[0].parameters()}
        parameters = [*trainer.network.parameters(), *trainer.auxiliary["head"].parameters()]
        number = len([*trainer.network.parameters()])
        for epoch, (a, b, expected) in enumerate(zip(mine, theirs, reference, strict=True)):
            for name, value in expected["memory"].items():
                assert torch.equal(a["memory"][name], b["memory"][name])
                torch.testing.assert_close(a["memory"][name], value, atol=5e-5, rtol=1e-4)
            assert a["memory"]["pushed"].gt(0).all()
            largest = max(x.abs().max().item() for x in expected["gradients"] if x is not None)
            for index, parameter in enumerate(parameters):
                first, second, one = (x["gradients"][index] for x in (a, b, expected))
                if epoch == 0 and index >= number:
                    assert first is None and second is None and one is None  # no head in the warm-up
                    continue
                assert torch.equal(first, second) and first.isfinite().all()
                if id(parameter) not in coarsest:  # weight 1e-6 under DDP, 0 without
                    torch.testing.assert_close(first, one, atol=3e-5 * max(1.0, largest), rtol=1e-3)
        assert any(x.abs().max() > 1e-3 for x in mine[1]["gradients"][number:])
