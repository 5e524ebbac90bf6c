"""Mixed precision, compilation and checkpoints on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from tests.running import make_trainer, same_weights, weights

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


@pytest.mark.parametrize("method, hyperparameters", METHODS)
def test_losses_do_not_synchronise_with_the_device(make_dataset, method, hyperparameters):
    trainer = make_trainer(make_dataset(), method, device="cuda", hyperparameters=hyperparameters)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for _ in range(2):  # cuDNN's choices and lazy initialisation
        trainer.train_step(next(trainer.dataloader_train))
    view = trainer.streams.strong_view
    view.drawn.probabilities = [1.0] * len(view.drawn.transforms)  # every transform, not those that happen to be drawn
    for step in view.transforms.transforms[1:]:
        step.apply_probability = 1.0
    batch = next(trainer.dataloader_train)
    batch["unlabeled"]["withheld"] = torch.ones_like(batch["unlabeled"]["valid"], dtype=torch.int16)
    labeled, unlabeled = trainer.split_batch(batch)  # with a withheld label, so that it is monitored
    trainer.step = 0
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.losses(labeled, unlabeled)
        if trainer.teacher is not None:
            trainer.teacher.update(trainer.iteration)
        trainer.after_optimizer_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
