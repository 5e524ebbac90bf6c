"""Manifest files: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.manifest import EXAMPLE, Experiment, parse_manifest, read_manifest, to_json

SMALL = {"datasets": [{"dataset": 4, "configurations": ["2d"], "trainers": ["A"], "splits": ["n6"]}]}


def test_the_example_of_the_help_text(tmp_path: Path):
    (tmp_path / "m.yaml").write_text(EXAMPLE)
    manifest = read_manifest(str(tmp_path / "m.yaml"))
    assert manifest.device == "cuda"
    assert manifest.experiments == (
        Experiment(
            dataset="4",
            configurations=("3d_fullres",),
            trainers=("nnUNetTrainerFixMatch", "nnUNetTrainerSKCDF"),
            splits=("n6", "n12"),
            folds=(0, 1),
            seeds=(0, 1, 2),
            training={"num_epochs": 200},
            hyperparameters={"nnUNetTrainerSKCDF": {"unsupervised_weight": 2.0}},
            test_images=str(tmp_path / "imagesTs"),
            test_labels=str(tmp_path / "labelsTs"),
        ),
    )


def test_json_and_yaml_say_the_same(tmp_path: Path):
    (tmp_path / "m.yaml").write_text(EXAMPLE)
    (tmp_path / "m.json").write_text(json.dumps(yaml.safe_load(EXAMPLE)))
    assert read_manifest(str(tmp_path / "m.yaml")) == read_manifest(str(tmp_path / "m.json"))


def test_what_stands_under_a_dataset_replaces_the_common_values():
    content = {
        "trainers": ["A", "B"],
        "configurations": "3d_fullres",
        "splits": ["n6"],
        "seeds": [3, 4],
        "datasets": [4, {"dataset": "Dataset005_X", "trainers": ["A", "A"], "seeds": 7}],
    }
    first, second = parse_manifest(content, "m", "/").experiments
    assert (first.dataset, first.trainers, first.seeds, first.folds) == ("4", ("A", "B"), (3, 4), (0,))
    assert (second.dataset, second.trainers, second.seeds) == ("Dataset005_X", ("A",), (7,))
    assert first.configurations == second.configurations == ("3d_fullres",)


def test_the_resolved_manifest_reads_as_the_same():
    manifest = parse_manifest({**yaml.safe_load(EXAMPLE), "protocol": "la"}, "m", "/data")
    assert to_json(manifest)["datasets"][0]["protocol"] == "la"  # where the report looks for it
    assert parse_manifest(json.loads(json.dumps(to_json(manifest))), "m", "/elsewhere") == manifest


def test_all_faults_are_said_at_once():
    content = {
        "device": "tpu",
        "datasets": [
            {"dataset": 4, "configurations": ["2d"], "trainers": [], "splits": ["n6"], "foldz": [0], "seeds": [-1]},
            {"dataset": [5], "trainers": ["A"], "splits": [6], "configurations": ["2d"], "folds": [True]},
            {"configurations": ["2d"], "trainers": ["A"], "splits": ["n6"], "plans": 3, "training": {"seed": 1}},
            {**SMALL["datasets"][0], "test_images": "x", "hyperparameters": {"A": 3}},
        ],
    }
    with pytest.raises(SemiSupervisedError) as caught:
        parse_manifest(content, "m.yaml", "/")
    message = str(caught.value)
    for part in (
        "device must be one of",
        'dataset 4: unknown key "foldz"; allowed: dataset, configurations',
        'dataset 4: "trainers" must be a list of text, got []',
        'dataset 4: "seeds" must not be negative',
        'dataset [5]: "dataset" must be a name or an id',
        'dataset [5]: "splits" must be a list of text, got [6]',
        'dataset [5]: "folds" must be a list of whole numbers, got [True]',
        'dataset (no name): "dataset" must be a name or an id',
        '"plans" must be text, got 3',
        'the seed belongs under "seeds"',
        "needs both test_images and test_labels",
        '"hyperparameters" must be a dictionary {trainer: {setting: value}}',
    ):
        assert part in message


@pytest.mark.parametrize("text", ["[]", "datasets: []", "datasets: 4", "just words"])
def test_other_content_is_refused(tmp_path: Path, text: str):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(SemiSupervisedError, match='a dictionary with a list "datasets"'):
        read_manifest(str(tmp_path / "m.yaml"))


def test_neither_yaml_nor_json(tmp_path: Path):
    (tmp_path / "m.yaml").write_text("{a: [")
    with pytest.raises(SemiSupervisedError, match="is neither YAML nor JSON"):
        read_manifest(str(tmp_path / "m.yaml"))
