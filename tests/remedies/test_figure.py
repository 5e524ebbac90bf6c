"""Complaints of figure: each remedy, followed, helps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from tests.evaluation.figures.models import saved_model
from tests.evaluation.scoring.folders import Folders
from tests.remedies.rows import Here, Row, check
from tests.remedies.test_evaluation import shown_without_description

IMAGES = ("figure", "labels", "-i", "{folder}", "-o", "{folder}/out")
LABELS = (*IMAGES, "-pred", "A={folder}/predictions")
DESCRIBED = (*LABELS, "-djfile", "{folder}/given.json")
OF_MODEL = ("-d", "901", "-p", "nnUNetPlans", "-c", "3d_fullres", "-device", "cpu", "-tr")
TEACHER = ("figure", "labels", "-i", "{folder}/imagesTr", "-o", "{folder}/out", *OF_MODEL, "nnUNetTrainerMeanTeacher")
ONE = ("--cases", "tiny_005")
EMBEDDINGS = ("figure", "embeddings", "-o", "{folder}/figure.png", "--batches", "1", *OF_MODEL)
PLGCL = (*EMBEDDINGS, "nnUNetTrainerPLGCL", "--cases")
SMALL = {"embedding_size": 16, "memory_size": 64, "min_keys": 2}


def labels(here: Here) -> None:
    shown_without_description(here, Folders(here.folder))


def models(here: Here) -> None:
    """One of each trainer, and the images in the folder of the test."""
    saved_model(here.base, nnUNetTrainerMeanTeacher, here.patch, here.folder)
    saved_model(here.base, nnUNetTrainerPLGCL, here.patch, here.folder, **SMALL)
    (here.folder / "imagesTr").symlink_to(here.base.parents[1] / "nnUNet_raw" / here.base.name / "imagesTr")


def few_patches(here: Here) -> None:
    models(here)
    here.patch.setattr("nnunet_ssl.evaluation.figures.embedding_figure.LEAST", 100)


def row(
    site: str, ask: tuple[str, ...], advises: str, cure: tuple[str, ...], fault: Callable[[Here], object] = models
) -> Row:
    return Row(site, ask, advises, cure, fault, dataset=None if fault is labels else ())


ROWS = {
    "labels of nobody": row("commands.figure:_labels 1", IMAGES, "Give their folders with -pred", DESCRIBED, labels),
    "predictions that are no folder": row(
        "evaluation.figures.labels:draw_labels 1",
        (*IMAGES, "-pred", "A={folder}/nowhere", "-djfile", "{folder}/given.json"),
        "-pred NAME=FOLDER",
        DESCRIBED,
        labels,
    ),
    "labels whose classes nobody names": row(
        "evaluation.figures.labels:draw_labels 2", LABELS, "Give it with -djfile", DESCRIBED, labels
    ),
    "a case without prediction": row(
        "evaluation.figures.labels:draw_labels 3",
        (*DESCRIBED, "--cases", "case_9"),
        "Choose others with --cases",
        DESCRIBED,
        labels,
    ),
    "a network that the checkpoint lacks": row(
        "evaluation.figures.pseudo_labels:predict_with 1",
        (*TEACHER, *ONE, "--networks", "student"),
        "Choose one that it has with --networks",
        (*TEACHER, *ONE, "--networks", "network"),
    ),
    "a case without image": row(
        "evaluation.figures.pseudo_labels:predict_with 2",
        (*TEACHER, "--cases", "tiny_905"),
        "Choose others with --cases",
        (*TEACHER, *ONE),
    ),
    "a trainer without embeddings": row(
        "evaluation.figures.embeddings:PatchEmbedder.__init__ 1",
        (*EMBEDDINGS, "nnUNetTrainerMeanTeacher", *ONE),
        "Give a model of nnUNetTrainerPLGCL",
        (*PLGCL, *ONE[1:]),
    ),
    "a case that is not preprocessed": row(
        "evaluation.figures.embeddings:_dataset 1",
        (*PLGCL, "tiny_905"),
        "Give preprocessed cases with --cases",
        (*PLGCL, *ONE[1:]),
    ),
    "too few patches": row(
        "evaluation.figures.embedding_figure:with_tsne 1",
        (*PLGCL, *ONE[1:]),
        "or more --batches",
        (*PLGCL, *ONE[1:], "--batches", "4"),
        few_patches,
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    found, folder = ROWS[name], tmp_path / "files"
    folder.mkdir()
    base = folder if found.dataset is None else make_dataset(preprocess=False, unlabeled=0)
    check(found, Here(base, folder, monkeypatch, capsys))
