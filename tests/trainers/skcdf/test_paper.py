from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_ssl.trainers.skcdf.paper import nnUNetTrainerSKCDF_paper
from nnunet_ssl.training.streams import Streams
from tests.running import make_trainer

pytestmark = pytest.mark.usefixtures("no_figures")
FEW = {"num_val_iterations_per_epoch": 1, "save_every": 1}


def started(dataset: Path, **options) -> nnUNetTrainerSKCDF_paper:
    trainer = make_trainer(dataset, nnUNetTrainerSKCDF_paper, **{"training": FEW, **options})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def test_two_validation_steps_unless_the_settings_say_otherwise(make_dataset):
    dataset = make_dataset()
    for training, steps in ((None, 2), ({"num_val_iterations_per_epoch": 7}, 7)):
        trainer = make_trainer(dataset, nnUNetTrainerSKCDF_paper, training=training)
        assert trainer.num_val_iterations_per_epoch == steps
    trainer.initialize()
    assert trainer.network.guided_dropout and not trainer.counts_patches


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
