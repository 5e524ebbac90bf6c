"""Pictures of cases with predictions and pseudo-labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_ssl.cli import main
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.figures.labels import draw_labels, mean_dice
from nnunet_ssl.evaluation.model_folder import auxiliary_weights
from nnunet_ssl.evaluation.report import overlay_figure
from nnunet_ssl.evaluation.report.volumes import Volumes
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.evaluation.figures.models import saved_model
from tests.evaluation.report import synthetic
from tests.tiny import DATASET

CASES = ("case_0", "case_3")
PNG = b"\x89PNG"


@pytest.fixture
def folders(tmp_path):
    """Images and true labels of two cases; predictions of A as they are, of B one voxel and of C three voxels aside."""
    synthetic.write_raw(tmp_path, list(CASES))
    raw = tmp_path / "raw" / synthetic.DATASET
    labels = {"background": 0, **synthetic.CLASSES}
    content = {"channel_names": {"0": "MRI"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(content))
    for name, shift in (("A", 0), ("B", 1), ("C", 3)):
        for case in CASES:
            synthetic._write(np.roll(synthetic.reference(case), shift, axis=2), tmp_path / name / f"{case}.nii.gz")
        (tmp_path / name / "dataset.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def drawn(monkeypatch):
    """The figures, as they become PNG."""
    figures = []
    monkeypatch.setattr(overlay_figure, "to_png", lambda figure: figures.append(figure) or PNG)
    return figures


def words(folders: Path, *more: str) -> list[str]:
    images = str(folders / "raw" / synthetic.DATASET / "imagesTr")
    return ["figure", "labels", "-i", images, "-o", str(folders / "out"), *more]


def test_each_case_with_every_prediction_and_its_dice(folders, drawn, capsys):
    truth = str(folders / "raw" / synthetic.DATASET / "labelsTr")
    named = [f"{name}={folders / name}" for name in "ABC"]
    assert main(words(folders, "-ref", truth, "-pred", *named)) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert sorted(p.name for p in (folders / "out").iterdir()) == [f"{case}.png" for case in CASES]
    axes = drawn[1].axes
    assert [a.get_title() for a in axes] == ["reference", "A", "B", "C"]
    label = synthetic.reference("case_3")
    for axis, shift in zip(axes[1:], (0, 1, 3), strict=True):
        other = np.roll(label, shift, axis=2)
        dice = [2 * ((label == k) & (other == k)).sum() / ((label == k).sum() + (other == k).sum()) for k in (1, 2)]
        assert axis.get_xlabel() == f"Dice {100 * np.mean(dice):.1f} % (whole volume)"
    assert drawn[1].get_suptitle() == "case_3, slice 4 of 6" and axes[0].get_ylabel() == ""
    assert len(axes[0].collections) == 4 and len(axes[1].collections) == 8  # two classes, each with a halo


def test_a_case_without_true_label_is_shown_where_most_is_predicted(folders, drawn):
    (folders / "raw" / synthetic.DATASET / "labelsTr" / "case_3.nii.gz").unlink()
    truth = str(folders / "raw" / synthetic.DATASET / "labelsTr")
    assert main(words(folders, "-ref", truth, "-pred", f"A={folders / 'A'}", "--cases", "case_3")) == 0
    (figure,) = drawn
    assert [a.get_title() for a in figure.axes] == ["image", "A"] and figure.axes[1].get_xlabel() == ""
    assert figure.get_suptitle() == "case_3, slice 4 of 6" and not figure.axes[0].collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A"]


def test_what_cannot_be_shown_is_listed(folders, capsys):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), str(folders / "A" / "case_0.nii.gz"))
    assert main(words(folders, "-pred", f"A={folders / 'A'}", "--cases", "case_0", "case_9", "case_3")) == 1
    text = capsys.readouterr().err
    assert "case_0: image and prediction" in text and "(2, 3, 4)" in text
    assert "case_9: " in text and "case_9_0000.nii.gz" in text and "missing" in text
    assert main(words(folders)) == 1
    assert "-pred NAME=FOLDER, or a model" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(words(folders, "-pred", "folder"))
    assert "'folder' is not NAME=FOLDER" in capsys.readouterr().err
    with pytest.raises(SemiSupervisedError, match="These are not folders:\n.*nowhere"):
        draw_labels(str(folders), {"A": str(folders / "nowhere")}, str(folders / "out"))
    (folders / "B" / "case_0.nii.gz").unlink()
    (folders / "C" / "case_3.nii.gz").unlink()
    with pytest.raises(SemiSupervisedError, match="no case that all of"):
        draw_labels(str(folders), {n: str(folders / n) for n in "BC"}, str(folders / "out"))


def test_dice_is_the_mean_of_classes_that_are_there():
    reference, prediction = np.zeros((2, 1, 4, 4), np.uint8)
    classes = [EvaluatedClass(name, (value,)) for value, name in enumerate("abc", 1)]
    volumes = Volumes(reference, reference, prediction, (1, 1, 1))
    assert mean_dice(volumes, classes) is None
    reference[0, 0], prediction[0, 0, :2], prediction[0, 3] = 1, 1, 3
    assert mean_dice(volumes, classes) == pytest.approx((4 / 6 + 0) / 2)
    assert mean_dice(Volumes(reference, None, prediction, (1, 1, 1)), classes) is None


# ---- by networks of a checkpoint


@pytest.mark.usefixtures("no_figures")
def test_pseudo_labels_of_the_teacher(make_dataset, tmp_path, monkeypatch, drawn, capsys):
    base = make_dataset(preprocess=False)
    saved_model(base, nnUNetTrainerMeanTeacher, monkeypatch, tmp_path, all_is=2)
    images = base.parents[1] / "nnUNet_raw" / DATASET / "imagesTr"
    given = ["figure", "labels", "-i", str(images), "-o", str(tmp_path / "out"), "-d", "901", "-c", "3d_fullres",
             "-p", "nnUNetPlans", "-tr", "nnUNetTrainerMeanTeacher", "-device", "cpu"]  # fmt: skip
    assert main([*given, "--cases", "tiny_005", "--networks", "teacher", "network"]) == 0
    shown = {n: sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / n / "tiny_005.nii.gz")))
             for n in ("teacher", "network")}  # fmt: skip
    assert (shown["teacher"] == 2).all() and not (shown["network"] == 2).all()
    assert [a.get_title() for a in drawn[0].axes] == ["image", "teacher", "network"]
    assert main([*given, "--networks", "memory"]) == 1
    assert "checkpoint_final.pth has network, teacher, and no such networks:\n  - memory" in capsys.readouterr().err
    assert main([*given, "--cases", "tiny_905"]) == 1
    assert "no images of these cases:\n  - tiny_905" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_the_trained_network_of_a_file_in_which_the_teacher_predicts(make_dataset, tmp_path, monkeypatch):
    base = make_dataset(preprocess=False)
    trainer = saved_model(base, nnUNetTrainerMeanTeacher, monkeypatch, tmp_path, predict_with="teacher", all_is=1)
    weights, _ = auxiliary_weights(str(Path(trainer.output_folder, "checkpoint_final.pth")))
    for name, module in (("network", trainer.network), ("teacher", trainer.auxiliary["teacher"])):
        own = module.state_dict()
        assert all(torch.equal(weights[name][key], own[key]) for key in own)
