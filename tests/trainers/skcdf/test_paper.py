from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.skcdf.paper import nnUNetTrainerSKCDF_paper
from nnunet_ssl.training.streams import Streams
from tests.running import SHORT, make_trainer

pytestmark = pytest.mark.usefixtures("no_figures")
FEW = {"num_val_iterations_per_epoch": 1, "save_every": 1}


def started(dataset: Path, **options) -> nnUNetTrainerSKCDF_paper:
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF_paper, **{"training": FEW, **options})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def test_optimisation_is_the_published_one(make_dataset):
    trainer = started(make_dataset(unlabeled=5))
    assert type(trainer.optimizer) is torch.optim.SGD
    (group,) = trainer.optimizer.param_groups
    values = {key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay")}
    assert values == {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 3e-5}
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (1500, 2)  # 5 unlabelled cases, 2 per step
    assert isinstance(trainer.lr_scheduler, PolyLRScheduler)
    trainer.lr_scheduler.step(750)
    assert group["lr"] == pytest.approx(0.160766, abs=1e-6)
    assert not trainer.recipe.clipped
    hp = trainer.hyperparameters
    assert (hp.unsupervised_weight, hp.transfer_decay, hp.transfer_order) == (10.0, 0.99, "H->D->H")
    assert (hp.token_map, hp.channel_dropout) == ("xavier", 0.5)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_no_mixed_precision(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerSKCDF_paper, training=None, device="cuda")
    assert trainer.grad_scaler is None
    assert isinstance(trainer.mixed_precision(), nullcontext)


def test_several_processes_pass_over_the_cases_in_as_many_steps(make_dataset, monkeypatch):
    monkeypatch.setattr(Streams, "unlabeled_batch_size", 1)  # the share of one of two
    assert started(make_dataset(unlabeled=5)).num_iterations_per_epoch == 2


def test_two_and_two_plain_crops(make_dataset):
    dataset = make_dataset(unlabeled=1, labeled=6)
    trainer = started(dataset, fold="all")
    trainer.configuration_manager.configuration["batch_size"] = 7  # what the plans say does not matter
    batch = next(trainer.dataloader_train)
    labeled, unlabeled = trainer.split_batch(batch)
    assert labeled.image.shape == unlabeled.image.shape == (2, 1, 16, 16, 16)
    assert isinstance(labeled.target, torch.Tensor) and labeled.target.shape == (2, 1, 16, 16, 16)
    assert trainer.inference_allowed_mirroring_axes is None
    loader = trainer.dataloader_train.data_loader
    assert loader.labeled.oversample_foreground_percent == 0.0
    for stream, images in ((loader.labeled, labeled.image), (loader.unlabeled, unlabeled.image)):
        whole = [torch.from_numpy(stream._data.load_case(key)[0][:]) for key in stream.indices]
        for image in images:  # occurs as it is in one of the cases
            assert any(occurs(image, case) for case in whole)


def occurs(patch: torch.Tensor, case: torch.Tensor) -> bool:
    if any(p > s for p, s in zip(patch.shape[1:], case.shape[1:], strict=True)):
        return False
    windows = case[0].unfold(0, 16, 1).unfold(1, 16, 1).unfold(2, 16, 1).reshape(-1, 16, 16, 16)
    return (windows == patch[0]).all(dim=(1, 2, 3)).any().item()


def test_no_gradient_is_clipped(make_dataset):
    trainer = started(make_dataset())
    losses = trainer.losses
    trainer.losses = lambda *batch: {name: 1e4 * term for name, term in losses(*batch).items()}
    trainer.train_step(next(trainer.dataloader_train))
    gradients = [p.grad.norm() for p in trainer.network.parameters() if p.grad is not None]
    assert torch.stack(gradients).norm() > 100


def test_the_settings_block_wins(make_dataset):
    dataset = make_dataset()
    training = {**SHORT, "initial_lr": 0.1, "weight_decay": 0.02, "num_epochs": 7, "num_iterations_per_epoch": 3}
    trainer = started(dataset, training=training, hyperparameters={"token_map": "identity", "unlabeled_batch_size": 3})
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    group = trainer.optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.1, 0.02)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch) == (7, 3)
    assert len(trainer.split_batch(next(trainer.dataloader_train))[1]) == 3
    for optimizer in ("adamw", "sgd"):
        other = make_trainer(dataset, nnUNetTrainerSKCDF_paper, training={"optimizer": optimizer})
        other.initialize()
        assert other.optimizer.param_groups[0]["lr"] == 0.01  # nnU-Net's
    amos = make_trainer(dataset, nnUNetTrainerSKCDF_paper, training={"initial_lr": 0.1})
    amos.initialize()
    assert amos.optimizer.param_groups[0]["lr"] == 0.1 and amos.optimizer.param_groups[0]["momentum"] == 0.9
    assert make_trainer(dataset, find_trainer("nnUNetTrainerSKCDF_paper_9epochs"), training=None).num_epochs == 9


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_trains_and_resumes_with_the_same_number_of_steps(make_dataset, configuration):
    dataset = make_dataset(unlabeled=5)
    training = {**FEW, "num_epochs": 2}
    first = make_trainer(dataset, nnUNetTrainerSKCDF_paper, configuration, training=training)
    first.run_training()
    second = make_trainer(dataset, nnUNetTrainerSKCDF_paper, configuration, training=training)
    second.load_checkpoint(str(Path(first.output_folder, "checkpoint_final.pth")))
    second.on_train_start()
    assert second.num_iterations_per_epoch == first.num_iterations_per_epoch == 2
    assert "before the resume" not in Path(second.log_file).read_text()
