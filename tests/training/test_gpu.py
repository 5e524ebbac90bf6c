"""Mixed precision, compilation and checkpoints on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_ssl.external import nnunet_ssl_trainers
from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from tests.running import make_trainer, same_weights, weights
from tests.trainers.registered import NAMES, make_registered

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


STRONG = {"student_view": "strong"}
QUERIES = {"queries": 8, "query_width": 16, "pixel_width": 8, "mask_width": 4, "warmup_fraction": 0.0}
METHODS = [
    (nnUNetTrainerMeanTeacher, STRONG),
    (nnUNetTrainerSKCDF, None),
    (nnUNetTrainerDualNetworks, None),
    (nnUNetTrainerDKUXNet, QUERIES),
    (nnUNetTrainerLDC, {"warmup_fraction": 0.0}),
    (nnUNetTrainerCMAformer, {"warmup_fraction": 0.0}),
]


@pytest.mark.parametrize("compiled", ["f", "t"])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("method, hyperparameters", METHODS)
def test_trains_in_mixed_precision(make_dataset, monkeypatch, method, hyperparameters, configuration, compiled):
    dataset = make_dataset()
    monkeypatch.setenv("nnUNet_compile", compiled)
    trainer = make_trainer(dataset, method, configuration, device="cuda", hyperparameters=hyperparameters)
    seen = []
    losses = trainer.losses

    def record(labeled, unlabeled):
        terms = losses(labeled, unlabeled)
        seen.append({name: value.dtype for name, value in terms.items()})
        assert all(torch.isfinite(value) for value in terms.values())
        return terms

    trainer.losses = record
    trainer.run_training()
    assert all(set(dtypes.values()) == {torch.float32} for dtypes in seen)
    again = make_trainer(dataset, method, configuration, device="cuda", hyperparameters=hyperparameters)
    again.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    assert same_weights(weights(again.network), weights(trainer.network))
    for name, module in trainer.auxiliary.items():
        assert same_weights(weights(again.auxiliary[name]), weights(module))


# begun, so that every term is at work
BEGUN = {
    "DKUXNet": "warmup_fraction",
    "LDC": "warmup_fraction",
    "CMAformer": "warmup_fraction",
    "PLGCL": "warmup_epochs",
}


@pytest.mark.parametrize("pull_looks", [0, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_step_does_not_synchronise_with_the_device(make_dataset, name, pull_looks):
    """But for the loss that nnU-Net reads, and the scaler's look at its gradients, both behind the backward pass."""
    key = next((key for method, key in BEGUN.items() if method in name and "Supervised" not in name), None)
    settings = {"pull_looks": pull_looks} if has_terms(name) else {}
    trainer = make_registered(
        make_dataset(), name, "3d_fullres", device="cuda", hyperparameters=settings | ({key: 0} if key else {})
    )
    if not has_terms(name):
        pytest.skip("its step is nnU-Net's own")
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for _ in range(2):  # cuDNN's choices and lazy initialisation
        trainer.train_step(next(trainer.dataloader_train))
    view = trainer.streams.strong_view
    if hasattr(view, "drawn"):
        view.drawn.probabilities = [1.0] * len(view.drawn.transforms)  # every transform, not those that are drawn
        for step in view.transforms.transforms[1:]:
            step.apply_probability = 1.0
    batch = next(trainer.dataloader_train)
    if "unlabeled" in batch:
        batch["unlabeled"]["withheld"] = torch.ones_like(batch["unlabeled"]["valid"], dtype=torch.int16)
    labeled, unlabeled = trainer.split_batch(batch)  # with a withheld label, so that it is monitored
    trainer.step = 0
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = trainer.losses(labeled, unlabeled)
        if pull_looks:
            trainer.monitor.pull(trainer.measure_pull(terms))
        if trainer.teacher is not None:
            trainer.teacher.update(trainer.iteration)
        trainer.after_optimizer_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def has_terms(name: str) -> bool:
    """Whether it is more than nnU-Net's own training with other settings."""
    return issubclass(getattr(nnunet_ssl_trainers, name), nnUNetTrainerSemiSupervised)
