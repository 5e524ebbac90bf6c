"""Every registered trainer: a resumed run equals an uninterrupted one; its checkpoint predicts what it validated."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer

from nnunet_ssl import external
from nnunet_ssl.training.network import unwrap
from tests.running import FOLD
from tests.tiny import DATASET
from tests.trainers import inside
from tests.trainers.conformance import TRAINING, Run, differences, plain, run
from tests.trainers.registered import NAMES, PREDICTS_WITH_THE_PLANS_NETWORK, PRESETS, RUNS, make_registered
from tests.trainers.routing import ROUTES

CASES = [(name, "3d_fullres") for name in NAMES] + [(name, "2d") for name in NAMES if name not in PRESETS]
"""Presets are their method with other settings."""
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def finished(ready_dataset, tmp_path, monkeypatch, request) -> tuple[Path, Run]:
    monkeypatch.setenv("nnUNet_extTrainer", next(iter(external.__path__)))
    fork = multiprocessing.get_context("fork")  # a spawned worker imports PyTorch anew; one thread is as safe here
    monkeypatch.setattr(multiprocessing, "get_context", lambda method=None: fork)
    monkeypatch.setattr(nnUNetTrainer, "default_num_processes", 1)
    name, configuration = request.param
    dataset = ready_dataset()
    return dataset, run(dataset, name, configuration, RUNS.get(request.param, {}), tmp_path)


def predict(folder: Path, case: str) -> np.ndarray:
    """What nnU-Net predicts of a raw case with the results of a run, as nnUNetv2_predict does."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    reader = predictor.plans_manager.image_reader_writer_class()
    raw = folder / "raw"
    image, properties = reader.read_images([str(raw / f"{case}_0000.nii.gz")])
    return predictor.predict_single_npy_array(image, properties, None, None, False)


@pytest.mark.slow
@pytest.mark.parametrize("finished", CASES, indirect=True, ids=lambda case: "-".join(case))
def test_resumed_equals_uninterrupted_and_the_checkpoint_predicts_what_was_validated(finished, monkeypatch, tmp_path):
    dataset, straight = finished
    name, configuration = type(straight.trainer).__name__, straight.trainer.configuration_name
    final = straight.final
    check_checkpoint(name, straight, final)
    check_prediction(name, straight, monkeypatch)
    check_resume(dataset, name, configuration, straight, final, tmp_path)


def check_checkpoint(name: str, straight: Run, final: dict[str, Any]) -> None:
    extra = final["nnunet_ssl"]
    assert plain(extra) and final["trainer_name"] == name
    stock = {
        "network_weights", "optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch",
        "init_args", "trainer_name", "inference_allowed_mirroring_axes",
    }  # fmt: skip
    assert set(final) == stock | {"nnunet_ssl"}
    chosen = RUNS.get((name, straight.trainer.configuration_name), {})
    assert extra["settings"]["training"]["num_epochs"] == 3
    assert chosen.items() <= extra["settings"]["hyperparameters"].items()
    if "teacher" in ROUTES[name].frozen:
        teacher = unwrap(inside.networks(straight.trainer)["teacher"]).state_dict()
        same = not differences(dict(final["network_weights"]), dict(teacher))
        assert same == (extra["settings"]["hyperparameters"]["predict_with"] == "teacher")
    if len(ROUTES[name].terms) > 1:
        assert set(ROUTES[name].frozen) <= set(extra["auxiliary"])
        table = pd.read_csv(straight.folder / "semi_supervised.csv")
        total = table.filter(regex="^loss_").iloc[-1].sum()  # by now, each term is in every step
        assert total == pytest.approx(straight.trainer.logger.get_value("train_losses", -1), rel=1e-5)


def check_prediction(name: str, straight: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the original space, with the trainer's own network, and with nnU-Net's alone where that is the same."""
    model, (case,) = straight.folder.parent, FOLD.val
    raw = Path(os.environ["nnUNet_raw"], DATASET, "imagesTr")
    (model / "raw").symlink_to(raw)
    validated = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(straight.folder / "validation" / f"{case}.nii.gz")))
    np.testing.assert_array_equal(predict(model, case), validated)
    if name not in PREDICTS_WITH_THE_PLANS_NETWORK:
        return
    alone = model.parent / "alone"
    shutil.copytree(model, alone, symlinks=True)
    file = alone / "fold_0" / "checkpoint_final.pth"
    torch.save(torch.load(file, weights_only=False) | {"trainer_name": "nnUNetTrainer"}, file)
    with monkeypatch.context() as patch:
        patch.delenv("nnUNet_extTrainer")
        for module in [m for m in sys.modules if m.split(".")[0] == "nnunet_ssl"]:
            patch.delitem(sys.modules, module)
        patch.setitem(sys.modules, "nnunet_ssl", None)
        np.testing.assert_array_equal(predict(alone, case), validated)


def check_resume(
    dataset: Path, name: str, configuration: str, straight: Run, final: dict[str, Any], kept: Path
) -> None:
    """With another seed, so that everything must come from the checkpoint; after one epoch in 2D, after two in 3D."""
    options = {"split": "n2", "training": TRAINING, "hyperparameters": RUNS.get((name, configuration), {})}
    epoch = 1 if configuration == "2d" else 2
    resumed = make_registered(dataset, name, configuration, **options, seed=123)
    resumed.load_checkpoint(str(straight.checkpoints[epoch - 1]))
    assert resumed.current_epoch == epoch
    resumed.run_training()
    assert "before the resume" not in Path(resumed.log_file).read_text()
    again = torch.load(Path(resumed.output_folder, "checkpoint_final.pth"), weights_only=False)
    assert differences(final, again) == []
