"""The options of `nnunet_ssl benchmark`."""

from __future__ import annotations

import argparse
import json

import pytest

from nnunet_ssl.commands import benchmark
from nnunet_ssl.errors import SemiSupervisedError
from tests.evaluation.benchmark.fakes import CONTROL, MEAN_TEACHER, SKCDF, WORDS, Place, run


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return parser.parse_args(words)


def manifest(*words: str):
    return benchmark.chosen_manifest(parsed(*words, "-o", "/out"), "/out")


def test_options_and_file_lead_to_the_same_manifest(tmp_path):
    options = manifest(
        *("-d", "4", "-c", "3d_fullres", "2d", "-p", "P", "-tr", SKCDF, "--splits", "n6", "n12", "-f", "0", "1"),
        *("--seeds", "1", "2", "--training", "num_epochs=20", "optimizer=adamw", "-device", "cpu"),
        *("--hyperparameters", f"{SKCDF}:unsupervised_weight=2.0"),
        *("--test-images", "/i", "--test-labels", "/l", "--protocol", "la"),
    )
    content = {
        "device": "cpu",
        "datasets": [
            {
                "dataset": 4,
                "configurations": ["3d_fullres", "2d"],
                "plans": "P",
                "trainers": [SKCDF],
                "splits": ["n6", "n12"],
                "folds": [0, 1],
                "seeds": [1, 2],
                "training": {"num_epochs": 20, "optimizer": "adamw"},
                "hyperparameters": {SKCDF: {"unsupervised_weight": 2.0}},
                "test_images": "/i",
                "test_labels": "/l",
                "protocol": "la",
            }
        ],
    }
    (tmp_path / "m.json").write_text(json.dumps(content))
    assert manifest("--manifest", str(tmp_path / "m.json")) == options


def test_defaults():
    found = manifest("-d", "4", "-c", "2d", "-tr", "T", "--splits", "n6")
    (experiment,) = found.experiments
    assert (experiment.plans, experiment.folds, experiment.seeds, found.device) == ("nnUNetPlans", (0,), (0,), "cuda")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-d", "4", "-tr", "T"), "Missing: -c, --splits."),
        (("--manifest", "x", "-d", "4"), "--manifest takes the place"),
        (("--manifest", "x", "-device", "cpu"), "--manifest takes the place"),
        ((), "There is no benchmark in /out"),
        (("-d", "4", "-c", "2d", "-tr", "T", "--splits", "n6", "--training", "x", "--hyperparameters", "a"), '"x" is'),
        (("-d", "4", "-c", "2d", "-tr", "T", "--splits", "n6", "--training", "seed=3"), 'belongs under "seeds"'),
        (("-d", "4", "-c", "2d", "-tr", "T", "--splits", "n6", "--test-images", "i"), "both test_images and"),
    ],
)
def test_incomplete_choices_are_explained(words, text):
    with pytest.raises(SemiSupervisedError) as caught:
        manifest(*words)
    assert text in str(caught.value)


def test_the_folder_remembers_its_benchmark(place: Place, capsys):
    assert run(*WORDS, "-o", str(place.out), "--write", "sh") == 0
    content = json.loads((place.out / "manifest.json").read_text())
    assert content["datasets"][0]["dataset"] == "Dataset901_Tiny"
    assert content["datasets"][0]["trainers"] == [CONTROL, MEAN_TEACHER]
    assert [job["trainer"] for job in content["jobs"]] == [CONTROL, MEAN_TEACHER]
    assert run("-o", str(place.out)) == 0
    assert "2 jobs: 2 complete." in capsys.readouterr().out


def test_the_manifest_of_another_program_is_not_replaced(place: Place):
    place.out.mkdir()
    (place.out / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(SemiSupervisedError, match="was not written by"):
        run(*WORDS, "-o", str(place.out))
    assert (place.out / "manifest.json").read_text() == '{"name": "a web page"}'


def test_an_unknown_job(place: Place):
    run(*WORDS, "-o", str(place.out), "--write", "sh")
    with pytest.raises(SemiSupervisedError, match=f'has no job "x". Its jobs:\n  - {place.job(CONTROL)}\n'):
        run("--job", "x", "-o", str(place.out))


def test_help_says_what_it_is_about(capsys):
    with pytest.raises(SystemExit):
        parsed("--help")
    output = capsys.readouterr().out
    assert "semi-supervised" in output and "hyperparameters: {nnUNetTrainerSKCDF" in output
