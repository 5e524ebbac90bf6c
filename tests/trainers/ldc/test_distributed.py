"""The Lagrange-duality trainers on two gloo processes: equal multipliers, and constraints over the patches of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.ldc.trainer import LABELED, UNLABELED, nnUNetTrainerLDC
from nnunet_ssl.training.network import unwrap
from tests.running import SHORT, make_trainer, run_ranks
from tests.training.test_distributed import joined_batch, part

CASES = [
    (nnUNetTrainerLDC, "3d_fullres", {"norm_budget": 0.5, "value_margin": 0.1}),
    (nnUNetTrainerCMAformer, "2d", {"gate": "qkv"}),
]


def build(dataset: Path, trainer_class: type, configuration: str, options: dict[str, Any]) -> Any:
    trainer = make_trainer(
        dataset, trainer_class, configuration, fold="all", training={**SHORT, "seed": 1}, hyperparameters=options
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


def state_of(trainer: Any) -> dict[str, Any]:
    modules = [trainer.network, *trainer.auxiliary.values()]
    return {
        "weights": [p.detach().clone() for m in modules for p in unwrap(m).parameters()],
        **{k: v.clone() for k, v in trainer.dual.multipliers.state_dict().items()},
        "budget": trainer.dual.budget,
    }


def on_rank(dataset: Path, rank: int, *case: Any) -> dict[str, Any]:
    trainer = build(dataset, *case)
    assert isinstance(trainer.network, DistributedDataParallel)
    assert isinstance(trainer.auxiliary["projection"], DistributedDataParallel)
    batch = batch_for(trainer, slice(2 * rank, 2 * rank + 2))
    terms = trainer.losses(*trainer.split_batch(batch))
    errors = {name: terms[name].detach() for name in ("constrained", "squared_error", "distance")}
    torch.stack([*terms.values()]).sum().backward()
    modules = [trainer.network, trainer.auxiliary["distance_head"], trainer.auxiliary["projection"]]
    gradients = [p.grad for m in modules for p in m.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    for _ in range(2):  # in the second, DDP refuses what got no gradient in the first
        trainer.train_step(batch)
    return {"errors": errors, "gradients": gradients, **state_of(trainer)}


def linear_term(dataset: Path, rows: slice) -> Tensor:
    """Cross-entropy and volumes of the unlabelled part alone: a mean over voxels, of unequal number on the ranks."""
    trainer = build(dataset, *CASES[0])
    trainer.dice_weights.weights = torch.zeros(2)
    trainer.dual.multipliers.volume[UNLABELED] += 0.2
    return trainer.losses(*trainer.split_batch(batch_for(trainer, rows)))["constrained_unlabeled"].detach()


def worker(rank: int, dataset: Path) -> Any:
    found = [on_rank(dataset, rank, *case) for case in CASES]
    # volumes of one step, the ranks having different numbers of valid voxels
    trainer = build(dataset, *CASES[0])
    trainer.train_step(batch_for(trainer, slice(2 * rank, 2 * rank + 2)))
    linear = linear_term(dataset, slice(2 * rank, 2 * rank + 2))
    return found, trainer.dual.multipliers.volume, linear


@pytest.mark.slow
def test_two_ranks_agree_and_constrain_the_patches_of_both(make_dataset, tmp_path):
    dataset = make_dataset(unlabeled=0)
    (ranks, volume, linear), (others, other_volume, other_linear) = run_ranks(worker, dataset, tmp_path)
    assert linear != other_linear
    torch.testing.assert_close((linear + other_linear) / 2, linear_term(dataset, slice(0, 4)))
    for case, mine, theirs in zip(CASES, ranks, others, strict=True):
        for key in mine.keys() - {"errors"}:
            first, second = (x[key] if isinstance(x[key], list) else [x[key]] for x in (mine, theirs))
            assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), key
        assert mine["volume_labeled"].any() and mine["volume_unlabeled"].any()
        assert mine["norm"] > 0 or "norm_budget" not in case[2]
        # labelled terms, whose patches all count alike, are those of one process with all patches
        joined = build(dataset, *case)
        if joined.enable_deep_supervision:  # nnU-Net gives the coarsest resolution a weight of 1e-6 under DDP
            joined.loss.weight_factors = (1.0, 1e-6)
        terms = joined.losses(*joined.split_batch(batch_for(joined, slice(0, 4))))
        for name, error in mine["errors"].items():
            mean = (error + theirs["errors"][name]) / 2
            torch.testing.assert_close(mean, terms[name].detach(), atol=1e-5, rtol=1e-4)
    joined = build(dataset, *CASES[0])
    joined.train_step(batch_for(joined, slice(0, 4)))
    for name in (LABELED, UNLABELED):
        assert torch.equal(volume[name], other_volume[name])
        torch.testing.assert_close(volume[name], joined.dual.multipliers.volume[name], atol=1e-8, rtol=1e-4)
