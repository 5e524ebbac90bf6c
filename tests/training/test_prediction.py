"""Prediction as publications do it: the windows, what is averaged, and one way for validation and command."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nnunet_ssl.cli import main
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.evaluate import evaluate_folder
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.training.prediction import AsPaperPredictor
from nnunet_ssl.training.settings import PredictionSettings
from tests.running import SHORT, make_trainer, write_split
from tests.tiny import DATASET


class Uneven(nn.Module):
    """Logits that depend on where in the window a voxel is, so that windows disagree."""

    def forward(self, window: Tensor) -> Tensor:
        ramp = torch.linspace(0, 3, window[0, 0].numel()).view(window.shape[2:])
        return torch.cat([window * ramp, window.square(), ramp.expand_as(window)], 1)


def predictor(settings: PredictionSettings, patch: tuple[int, ...], regions: bool = False) -> AsPaperPredictor:
    made = AsPaperPredictor(settings, device=torch.device("cpu"), allow_tqdm=False)
    made.network, made.configuration_manager = Uneven(), SimpleNamespace(patch_size=patch)
    made.label_manager, made.allowed_mirroring_axes = SimpleNamespace(has_regions=regions), None
    return made


def reference(image: Tensor, patch: tuple[int, ...], stride: tuple[int, ...], act: Any) -> Tensor:
    """Windows at min(i * stride, size - patch), summed and divided by their number."""
    starts = []
    for size, edge, step in zip(image.shape[1:], patch, stride, strict=True):
        count = -(-(size - edge) // step) + 1
        starts.append([min(i * step, size - edge) for i in range(count)])
    total, number = torch.zeros(3, *image.shape[1:]), torch.zeros(image.shape[1:])
    for corner in itertools.product(*starts):
        where = tuple(slice(c, c + edge) for c, edge in zip(corner, patch, strict=True))
        total[(slice(None), *where)] += act(Uneven()(image[(slice(None), *where)][None])[0])
        number[where] += 1
    return total / number


@pytest.mark.parametrize("stride", [(1, 3, 2), (4, 6, 5), (3, 5, 4)])
def test_windows_of_a_volume(stride):
    image, patch = torch.randn(1, 9, 11, 8), (4, 6, 5)
    found = predictor(PredictionSettings([*stride]), patch).predict_sliding_window_return_logits(image)
    expected = reference(image, patch, stride, lambda z: z.softmax(0))
    torch.testing.assert_close(found.softmax(0), expected, rtol=1e-4, atol=2e-6)
    as_logits = PredictionSettings([*stride], averaged="logits")
    found = predictor(as_logits, patch).predict_sliding_window_return_logits(image)
    torch.testing.assert_close(found, reference(image, patch, stride, lambda z: z), rtol=1e-4, atol=1e-5)
    regions = predictor(PredictionSettings([*stride]), patch, regions=True).predict_sliding_window_return_logits(image)
    expected = reference(image, patch, stride, torch.sigmoid)
    torch.testing.assert_close(regions.sigmoid(), expected, rtol=1e-4, atol=2e-6)


def test_slices_and_images_smaller_than_the_patch():
    image, patch = torch.randn(1, 3, 9, 8), (6, 5)
    made = predictor(PredictionSettings([2, 3]), patch)
    found = made.predict_sliding_window_return_logits(image)
    assert found.shape == (3, 3, 9, 8)
    for z in range(3):
        expected = reference(image[:, z], patch, (2, 3), lambda z: z.softmax(0))
        torch.testing.assert_close(found[:, z].softmax(0), expected, rtol=1e-4, atol=2e-6)
    small = made.predict_sliding_window_return_logits(image[:, :, :4])
    padded = nn.functional.pad(image[:, :, :4], (0, 0, 1, 1))
    torch.testing.assert_close(small, made.predict_sliding_window_return_logits(padded)[:, :, 1:-1])


def test_folds_average_probabilities():
    made = predictor(PredictionSettings([4, 6, 5]), (4, 6, 5))
    made.network = nn.Conv3d(1, 3, 1)
    made.list_of_parameters = [nn.Conv3d(1, 3, 1).state_dict() for _ in range(2)]
    image, each = torch.randn(1, 4, 6, 5), []
    for parameters in made.list_of_parameters:
        made.network.load_state_dict(parameters)
        each.append(made.network(image[None])[0].softmax(0))
    found = made.predict_logits_from_preprocessed_data(image).softmax(0)
    torch.testing.assert_close(found, sum(each) / 2)


# ---- with nnU-Net


@pytest.mark.usefixtures("no_figures")
def test_validation_and_the_command_predict_alike_and_the_best_is_marked(make_dataset, tmp_path, capsys):
    dataset = make_dataset()
    prediction = {"stride": [7, 8, 5], "checkpoint": "best"}
    write_split(dataset)
    write_plans_copy(901, name="paper", split="n2", training=SHORT, prediction=prediction)
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher, plans_name="paper", training=None)
    trainer.run_training()
    shutil.copy(Path(trainer.output_folder, "checkpoint_final.pth"), Path(trainer.output_folder, "checkpoint_best.pth"))
    trainer.perform_actual_validation(save_probabilities=True)
    validation = Path(trainer.output_folder, "validation")
    (case,) = trainer.do_split()[1]
    assert set(json.loads((validation / "summary.json").read_text())["mean"]) == {"1", "2"}
    raw = Path(dataset.parents[1], "nnUNet_raw", DATASET)
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    shutil.copy(raw / "imagesTr" / f"{case}_0000.nii.gz", images)
    words = ["predict-as-paper", "-i", str(images), "-o", str(out), "-d", "901", "-p", "paper", "-c", "3d_fullres"]
    words += ["-tr", "nnUNetTrainerMeanTeacher", "-device", "cpu", "--save_probabilities"]
    assert main(words) == 0
    assert "windows every 7 x 8 x 5 voxels, probabilities averaged" in capsys.readouterr().out
    first, second = (np.load(folder / f"{case}.npz")["probabilities"] for folder in (validation, out))
    assert first.shape == (3, 20, 22, 18) and first.max() - first.min() > 0.1
    np.testing.assert_allclose(first, second, atol=1e-3)  # which nnU-Net keeps in half precision

    found = evaluate_folder(str(raw / "labelsTr"), str(out), cases=[case], processes=1)
    assert found.to_json()["predicted"]["checkpoint"] == "checkpoint_best.pth"
    assert any("checkpoint_best.pth" in note and "chosen on the validation cases" in note for note in found.notes)
    assert main([*words, "-chk", "checkpoint_final.pth"]) == 0
    found = evaluate_folder(str(raw / "labelsTr"), str(out), cases=[case], processes=1)
    assert not any("chosen on" in note for note in found.notes)


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ({"weights": "gaussian"}, "stride = None must be voxels per axis"),
        ({"stride": [1, 0, 2]}, r"stride = \[1, 0, 2\] must be voxels per axis of the patch, each at least 1"),
        ({"stride": [2], "averaged": "votes"}, "averaged = 'votes' must be one of 'probabilities', 'logits'"),
        ({"stride": [2], "overlap": 2}, 'unknown key "overlap" in "prediction"'),
    ],
)
def test_settings_that_mean_nothing(make_dataset, prediction, message):
    make_dataset(preprocess=False)
    with pytest.raises(SemiSupervisedError, match=message):
        write_plans_copy(901, name="paper", prediction=prediction)


@pytest.mark.parametrize("stride", [[2, 2], [2, 2, 17]])
def test_a_stride_that_does_not_fit_the_patch(make_dataset, stride):
    dataset = make_dataset(preprocess=False)
    write_plans_copy(901, name="paper", prediction={"stride": stride})
    with pytest.raises(SemiSupervisedError, match="does not fit configuration 3d_fullres, whose patch is"):
        make_trainer(dataset, nnUNetTrainerMeanTeacher, plans_name="paper", training=None)
