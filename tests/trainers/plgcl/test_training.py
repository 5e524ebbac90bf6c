"""PLGCL from end to end in process: kinds of data, options, resume, checkpoint, refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.plgcl import settings as plgcl_settings
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.monitor import Monitor
from tests.running import SHORT, make_trainer, same_weights, weights
from tests.training.test_resume import Interrupted, interrupt_after, plain

pytestmark = pytest.mark.usefixtures("no_figures")
TWO = {**SHORT, "num_iterations_per_epoch": 2}
FEW = {"min_keys": 2, "memory_size": 64, "embedding_size": 16}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": (1, 2), "box": 2}
ANISOTROPIC = {"shape": (8, 22, 24), "spacing": (4.0, 1.0, 1.0), "patch_3d": (6, 20, 20)}


def table_of(trainer: nnUNetTrainerPLGCL) -> pd.DataFrame:
    return pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))


@pytest.mark.parametrize(
    "recipe, configuration",
    [
        ({"channels": 2, "residual": True}, "3d_fullres"),
        ({"mask_normalization": True, "residual": True}, "2d"),
        (ANISOTROPIC, "3d_fullres"),
        ({"labels": IGNORE}, "3d_fullres"),
        ({"labels": REGIONS, "regions_class_order": (1, 2)}, "3d_fullres"),
        ({"labels": {**REGIONS, "ignore": 3}, "regions_class_order": (1, 2)}, "2d"),
    ],
)
def test_every_kind_of_dataset_trains(make_dataset, recipe, configuration):
    trainer = make_trainer(make_dataset(**recipe), nnUNetTrainerPLGCL, configuration, training=TWO, hyperparameters=FEW)
    trainer.initialize()
    before = weights(trainer.network)
    trainer.run_training()
    assert not same_weights(before, weights(trainer.network))
    table = table_of(trainer)
    assert table[["loss_supervised", "loss_consistency"]].gt(0 if "labels" not in recipe else -1).all(axis=None)
    assert table["loss_contrast"][0] == 0 and table["loss_contrast"][1] > 0
    assert table[["weight_contrast", "weight_covariance"]].iloc[0].tolist() == [0, 0]
    assert table["purity"].between(0, 1).all() and table["mean_cosine"].between(-1, 1).all()
    assert [f"count_keys_{k}" in table for k in range(4)] == [True] * 3 + [False]
    assert "WARNING" not in Path(trainer.log_file).read_text()


class NoDeepSupervision(nnUNetTrainerPLGCL):
    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False


def test_trains_without_deep_supervision(make_dataset):
    trainer = make_trainer(make_dataset(), NoDeepSupervision, training=TWO, hyperparameters=FEW)
    trainer.run_training()
    assert table_of(trainer)["loss_contrast"][1] > 0


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


@pytest.mark.parametrize("configuration, predict_with", [("3d_fullres", "student"), ("2d", "teacher")])
def test_two_and_two_epochs_equal_four(make_dataset, configuration, predict_with):
    dataset = make_dataset()
    hyperparameters = {**FEW, "ema_decay": 0.8, "predict_with": predict_with, "max_classes": 2}

    def trainer(seed: int) -> nnUNetTrainerPLGCL:
        training = {**TWO, "num_epochs": 4}
        return make_trainer(
            dataset, nnUNetTrainerPLGCL, configuration, training=training, hyperparameters=hyperparameters, seed=seed
        )

    straight = trainer(0)
    straight.run_training()
    first = trainer(0)
    interrupt_after(first, 2)
    with pytest.raises(Interrupted):
        first.run_training()
    second = trainer(123)
    second.load_checkpoint(str(Path(first.output_folder, "checkpoint_latest.pth")))
    held, kept = (t.auxiliary["memory"].state_dict() for t in (first, second))
    assert second.auxiliary["memory"].counts.sum() > 0 and all(torch.equal(held[k], kept[k]) for k in held)
    assert torch.equal(second.sampler.generator.get_state(), first.sampler.generator.get_state())
    second.run_training()

    assert straight.logger.get_value("train_losses", None) == second.logger.get_value("train_losses", None)
    assert same_weights(weights(straight.network), weights(second.network))
    for name in ("teacher", "head", "teacher_head", "memory"):
        a, b = (t.auxiliary[name].state_dict() for t in (straight, second))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
    assert torch.equal(straight.sampler.generator.get_state(), second.sampler.generator.get_state())
    logs = [t.logger.local_logger.my_fantastic_logging for t in (straight, second)]
    keys = [k for k in logs[0] if k.startswith("ssl/")]
    assert "ssl/weight_covariance" in keys
    assert all(np.array_equal(logs[0][k], logs[1][k], equal_nan=True) for k in keys)
    assert logs[1]["ssl/weight_covariance"] == pytest.approx([0, 1 / 3, 5 / 3, 3])
    assert logs[1]["ssl/weight_contrast"] == pytest.approx([0, 0.2, 0.2, 0.2])
    text = Path(second.log_file).read_text()
    assert "before the resume" not in text and "WARNING" not in text
    extra = torch.load(Path(first.output_folder, "checkpoint_final.pth"), weights_only=False)["nnunet_ssl"]
    assert plain(extra) and set(extra["auxiliary"]) == {"teacher", "head", "teacher_head", "memory"}


@pytest.mark.parametrize("predict_with", ["student", "teacher"])
def test_a_checkpoint_renamed_to_nnunet_predicts_the_same_without_this_package(make_dataset, monkeypatch, predict_with):
    from nnunet_ssl import external

    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    hyperparameters = {**FEW, "predict_with": predict_with, "ema_decay": 0.5}
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, training=TWO, hyperparameters=hyperparameters)
    trainer.run_training()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 20, 22, 18)).astype(np.float32))

    def predict() -> torch.Tensor:
        predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, use_mirroring=False)
        predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
        return predictor.predict_logits_from_preprocessed_data(image).clone()

    ours = predict()
    file = Path(trainer.output_folder, "checkpoint_final.pth")
    checkpoint = torch.load(file, weights_only=False)
    state = (trainer.auxiliary["teacher"] if predict_with == "teacher" else trainer.network).state_dict()
    assert all(torch.equal(checkpoint["network_weights"][name], state[name]) for name in state)
    torch.save(checkpoint | {"trainer_name": "nnUNetTrainer"}, file)
    monkeypatch.delenv("nnUNet_extTrainer")
    for name in [m for m in sys.modules if m.split(".")[0] == "nnunet_ssl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nnunet_ssl", None)
    with pytest.raises(ModuleNotFoundError):
        import nnunet_ssl.trainers.plgcl.class_memory  # noqa: F401
    assert torch.equal(predict(), ours)


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
