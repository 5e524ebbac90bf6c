"""The commands of a recommendation: those that are needed, and no other; each can be run as it is printed."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.recommendation.facts import Facts, facts_of
from nnunet_ssl.recommendation.steps import Run, commands, memory_line, memory_of_step
from nnunet_ssl.trainers import CONTROL, FIRST_CHOICE
from tests.running import write_split

FACTS = Facts("Dataset004_X", "3d_fullres", 3, 10, 200, 2, 0.4, 24.0, {})
EXPORT = "export nnUNet_extTrainer=$(nnunet_ssl path)"
TRAIN = f"nnUNetv2_train 4 3d_fullres 0 -tr {FIRST_CHOICE}"


def printed(
    facts: Facts, trainer: str | None = FIRST_CHOICE, split: str | None = None, need: float = 10.0
) -> list[str]:
    return list(commands(Run(facts, trainer, "nnUNetPlans", split), need))


def test_where_everything_is_ready_there_is_the_variable_and_the_training():
    assert printed(FACTS) == [EXPORT, TRAIN]
    assert printed(FACTS, None) == ["nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainer"]


def test_raw_images_without_a_gpu_and_too_few_cases_for_folds():
    assert printed(replace(FACTS, raw=3, gpu=None, fold="all")) == [
        EXPORT,
        "nnunet_ssl preprocess -d 4 -c 3d_fullres",
        f"nnUNetv2_train 4 3d_fullres all -tr {FIRST_CHOICE} -device cpu",
    ]


def test_a_split_needs_a_trainer_that_knows_it():
    assert printed(FACTS, None, "l10") == [
        EXPORT,
        "nnunet_ssl plans -d 4 -p nnUNetPlans --split l10",
        f"nnUNetv2_train 4 3d_fullres 0 -tr {CONTROL} -p nnUNetPlans_l10",
    ]


@pytest.mark.parametrize(("need", "smaller"), [(22.9, False), (23.1, True)])
def test_plans_that_are_too_large_for_the_gpu_are_made_smaller(need, smaller):
    plans = f"-c 3d_fullres --fit 23 -tr {FIRST_CHOICE} --name nnUNetPlans_l10_smaller"
    made = printed(FACTS, split="l10", need=need)
    assert made[1] == "nnunet_ssl plans -d 4 -p nnUNetPlans --split l10" + (f" {plans}" if smaller else "")
    assert made[2] == f"{TRAIN} -p nnUNetPlans_l10{'_smaller' if smaller else ''}"
    line = memory_line(Run(FACTS, FIRST_CHOICE, "nnUNetPlans", None), need)
    assert line.startswith(f"Memory: a training step needs {need} GiB of the 24 GiB of your GPU")
    assert ("too much" in line) == smaller


def test_the_facts_know_what_is_raw_and_which_fold_there_is(make_dataset):
    make_dataset(preprocess=False, labeled=4)
    facts = facts_of("901", None, "nnUNetPlans", None)
    assert (facts.raw, facts.unlabeled, facts.fold) == (3, 3, "all")
    assert main(["preprocess", "-d", "901", "-np", "1"]) == 0
    assert main(["splits", "-d", "901", "--folds"]) == 0
    facts = facts_of("901", None, "nnUNetPlans", None)
    assert (facts.raw, facts.unlabeled, facts.fold) == (0, 3, "0")


def test_the_plans_for_a_small_gpu_are_written_and_fit(make_dataset, monkeypatch):
    make_dataset()
    whole = Run(facts_of("901", "2d", "nnUNetPlans", None), FIRST_CHOICE, "nnUNetPlans", None)
    need = memory_of_step(whole)
    monkeypatch.setattr("nnunet_ssl.doctor.memory.BESIDE", 0.0)
    run = replace(whole, facts=replace(whole.facts, gpu=0.9 * need))
    _, plans, train = commands(run, need)
    assert main(shlex.split(plans)[1:]) == 0
    assert train.endswith("-p nnUNetPlans_smaller")
    assert memory_of_step(replace(run, plans="nnUNetPlans_smaller")) <= 0.9 * need


def test_a_split_that_the_plans_name_counts(make_dataset):
    write_split(make_dataset())
    assert main(["plans", "-d", "901", "--split", "n2"]) == 0
    facts = facts_of("901", "2d", "nnUNetPlans_n2", None)
    assert (facts.labeled, facts.unlabeled, facts.fold) == (2, 6, "0")
