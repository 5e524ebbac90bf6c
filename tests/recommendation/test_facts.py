"""What is looked at in a dataset, through the command."""

from __future__ import annotations

import re

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.recommendation.facts import facts_of


def test_cases_classes_and_dimensions(ready_dataset):
    ready_dataset()
    whole, split = facts_of("901", None, "nnUNetPlans", None), facts_of("901", "2d", "nnUNetPlans", "n2")
    assert (whole.configuration, whole.dimensions, whole.labeled, whole.unlabeled) == ("3d_fullres", 3, 6, 3)
    assert (split.configuration, split.dimensions, split.labeled, split.unlabeled) == ("2d", 2, 2, 6)
    assert whole.classes == 2 and 0 < whole.rarest < 0.5 and "nnUNetTrainerFixMatch" not in whole.unsupported


def test_with_many_labels_headroom_is_printed_first(ready_dataset, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")  # the command stays in one line
    ready_dataset(labeled=10)
    assert main(["methods", "--for", "901"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("First run: nnunet_ssl headroom -d 901 -c 3d_fullres -device cpu")
    assert lines[first + 1] == "Take nnUNetTrainerFixMatch if it shows a gain."
    assert "labelled cases." in lines[first + 2]


def test_what_refuses_the_data_is_known(ready_dataset):
    ready_dataset(labels={"background": 0, "whole": (1, 2), "box": 2, "ignore": 3}, regions_class_order=(1, 2))
    facts = facts_of("901", "3d_fullres", "nnUNetPlans", None)
    assert facts.rarest is None and facts.classes == 2
    assert "does not support region-based training" in facts.unsupported["nnUNetTrainerSKCDF"]
    assert "nnUNetTrainerFixMatch" not in facts.unsupported


def test_an_unknown_configuration(ready_dataset):
    ready_dataset()
    with pytest.raises(SemiSupervisedError, match="has no configuration 4d(.|\n)*Choose from: .*3d_fullres"):
        facts_of("901", "4d", "nnUNetPlans", None)


def test_the_command_ends_with_what_to_run(ready_dataset, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    ready_dataset()
    assert main(["methods", "--for", "901", "-c", "2d", "--split", "n2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Dataset901_Tiny, 2d (2D): 2 labelled and 6 unlabelled cases, 2 foreground classes, no GPU."
    assert any(re.search(r"a training step needs \d+\.\d GiB on a GPU", line) for line in lines)
    assert lines[-3:] == [
        "export nnUNet_extTrainer=$(nnunet_ssl path)",
        "nnunet_ssl plans -d 901 --split n2",
        "nnUNetv2_train 901 2d 0 -tr nnUNetTrainerFixMatch -p nnUNetPlans_n2 -device cpu",
    ]
