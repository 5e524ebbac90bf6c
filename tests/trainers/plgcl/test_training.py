"""PLGCL from end to end in process: kinds of data, options, resume, checkpoint, refusals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.plgcl import settings as plgcl_settings
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.monitor import Monitor
from tests.running import SHORT, make_trainer

pytestmark = pytest.mark.usefixtures("no_figures")
TWO = {**SHORT, "num_iterations_per_epoch": 2}
FEW = {"min_keys": 2, "memory_size": 64, "embedding_size": 16}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


def table_of(trainer: nnUNetTrainerPLGCL) -> pd.DataFrame:
    return pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "cosine", "anchor": "max", "covariance": "diag"},
        {"similarity": "confidence", "anchor": "uniform", "covariance": "none", "consistency_target": "hard"},
        {"queries": "anchor", "key_encoder": "student", "confidence_source": "student", "supervised_loss": "ce"},
        {"class_balanced": True, "max_classes": 2, "embedding_size": 8, "memory_size": 30, "neighbours": 3},
        {"patch_size": [8, 8, 8], "embed_stage": "bottleneck", "unlabeled_batch_size": 1},
    ],
    ids=str,
)
def test_every_option_trains(make_dataset, options):
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, training=TWO, hyperparameters={**FEW, **options})
    trainer.run_training()
    assert table_of(trainer)["loss_contrast"][1] > 0
    memory = trainer.auxiliary["memory"]
    assert memory.keys.shape[2] == options.get("embedding_size", 16)
    assert memory.counts.max() <= options.get("memory_size", 64)
    if "patch_size" in options:
        assert (trainer.grid.stage, trainer.grid.size) == (2, (8, 8, 8))


# ---- resume and checkpoint


# ---- what is refused


def written(dataset: Path) -> bool:
    results = dataset.parents[1] / "nnUNet_results"
    return results.exists() and any(results.iterdir())


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_a_plan_in_which_no_window_fits_is_refused_before_anything_is_written(make_dataset, configuration):
    dataset = make_dataset(preprocess=False)
    plans = load_json(str(dataset / "nnUNetPlans.json"))
    axes = len(plans["configurations"][configuration]["patch_size"])
    wrong = {"patch_size": [5] * axes, "embed_stage": "bottleneck"}
    with pytest.raises(SemiSupervisedError, match=r"Windows of \[5, 5.* do not fit .*\n.*patch_size or embed_stage"):
        make_trainer(dataset, nnUNetTrainerPLGCL, configuration, hyperparameters=wrong)
    assert not written(dataset)


def test_an_encoder_that_cannot_take_the_windows_is_explained_at_the_start(make_dataset, monkeypatch):
    """The plans promise other strides than the network has."""
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerPLGCL)
    monkeypatch.setattr(plgcl_settings, "plan_grid", lambda *_: PatchGrid(2, (4, 4, 4), ((0,), (0,), (0,))))
    with pytest.raises(SemiSupervisedError, match=r"cannot embed patches of \[4, 4, 4\] voxels at stage 2: .*spatial"):
        trainer.initialize()


def test_networks_without_encoder_stages_are_refused(make_dataset):
    dataset = make_dataset(preprocess=False)
    file = str(dataset / "nnUNetPlans.json")
    plans = load_json(file)
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.primus.PrimusS"
    del architecture["arch_kwargs"]["strides"]
    save_json(plans, file, sort_keys=False)
    with pytest.raises(NotImplementedError, match="PLGCL does not support .*PrimusS"):
        make_trainer(dataset, nnUNetTrainerPLGCL)
    with pytest.raises(NotImplementedError, match="does not support cascade stages"):
        make_trainer(dataset, nnUNetTrainerPLGCL, "3d_cascade_fullres")
    assert not written(dataset)


def test_unusable_settings_are_refused(make_dataset):
    wrong = {"similarity": "dice", "temperature": 0.0, "ema_decay": 1.1, "memory_size": 0, "patch_size": 8, "omega": 1}
    with pytest.raises(SemiSupervisedError) as error:
        make_trainer(make_dataset(preprocess=False), nnUNetTrainerPLGCL, hyperparameters=wrong)
    assert all(name in str(error.value) for name in wrong)


@pytest.mark.parametrize("epochs, warned", [(50, True), (51, False)])
def test_a_training_that_is_all_warm_up_is_warned_about(make_dataset, epochs, warned):
    training, hyperparameters = {**TWO, "num_epochs": epochs}, {**FEW, "warmup_epochs": 50}
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, training=training, hyperparameters=hyperparameters)
    trainer.on_train_start()
    assert ("The warm-up of 50 epochs is the whole training" in Path(trainer.log_file).read_text()) == warned


def test_purity_is_that_of_the_labelled_part(make_dataset):
    """Where the label is ignored, nothing is known to be wrong."""
    trainer = make_trainer(make_dataset(labels=IGNORE), nnUNetTrainerPLGCL, training=TWO, hyperparameters=FEW)
    trainer.on_train_start()
    labeled, _ = trainer.split_batch(next(trainer.dataloader_train))
    target = labeled.target[0]
    target[:] = 1
    target[:, :, 8:] = 3
    for logits, expected in (([0.0, 9.0, 0.0], 1.0), ([0.0, 0.0, 9.0], 0.0)):
        trainer.monitor = Monitor(trainer.device)
        trainer.forward = lambda network, images, logits=logits: (
            torch.tensor(logits).view(1, 3, 1, 1, 1).expand(len(images), 3, *images.shape[2:])
        )
        trainer.observe_purity(labeled)
        assert trainer.monitor.epoch_means()["purity"] == expected
