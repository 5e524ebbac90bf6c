"""The commands of a recommendation: those that are needed, and no other; each can be run as it is printed."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.planning.small_network import SmallNetwork, shrink
from nnunet_ssl.recommendation.cpu_plans import cpu_patch
from nnunet_ssl.recommendation.facts import Facts, facts_of
from nnunet_ssl.recommendation.steps import Run, commands, memory_line, memory_of_step
from nnunet_ssl.trainers import CONTROL, FIRST_CHOICE
from tests.running import write_split
from tests.tiny import Tiny, plans_of

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
    """The network of the plans is small already."""
    assert printed(replace(FACTS, raw=3, gpu=None, fold="all")) == [
        EXPORT,
        "nnunet_ssl preprocess -d 4 -c 3d_fullres",
        f"nnUNetv2_train 4 3d_fullres all -tr {FIRST_CHOICE} -device cpu",
    ]


@pytest.mark.parametrize(
    ("trainer", "split", "name"),
    [
        (FIRST_CHOICE, None, "nnUNetPlans_cpu"),
        (FIRST_CHOICE, "l10", "nnUNetPlans_l10_cpu"),
        (None, None, "nnUNetPlans_cpu"),
    ],
)
def test_without_a_gpu_a_small_network_is_trained(trainer, split, name):
    """The control where nothing is recommended: nnU-Net's own trainer does not know the length of the plans."""
    cpu = replace(FACTS, raw=3, gpu=None, cpu_patch=(32, 40, 32))
    words = "nnunet_ssl plans -d 4" + (f" --split {split}" if split else "")
    preprocess = [f"nnunet_ssl preprocess -d 4 -c 3d_fullres -p {name}"] if trainer else []
    assert printed(cpu, trainer, split) == [
        EXPORT,
        f"{words} -c 3d_fullres --patch 32 40 32 --batch 2 --name {name} "
        "--training num_epochs=8 optimizer=adamw initial_lr=0.003",
        *preprocess,
        f"nnUNetv2_train 4 3d_fullres 0 -tr {trainer or CONTROL} -p {name} -device cpu",
    ]
    assert "--patch" not in "".join(printed(replace(cpu, gpu=24.0), trainer, split))
    refused = replace(cpu, unsupported={CONTROL: "cascade"})
    assert printed(refused, None) == ["nnUNetv2_train 4 3d_fullres 0 -tr nnUNetTrainer -device cpu"]


def test_without_a_gpu_the_commands_are_those_of_readme():
    """But for the dataset's own patch, and the images, which README has preprocessed before."""
    page = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    block = page.partition("## Without a GPU")[2].partition("```bash\n")[2].partition("```")[0]
    _, plans, train = printed(replace(FACTS, gpu=None, cpu_patch=(32, 40, 32)))
    told = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [sorted(line) for line in told] == [sorted(shlex.split(line)) for line in (plans, train)]


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((40, 56, 40), (1.0, 1.0, 1.0), (32, 32, 32)),
        ((20, 256, 224), (5.0, 1.5, 1.5), (20, 40, 40)),
        ((128, 128, 128), (1.0, 1.0, 1.0), (32, 32, 32)),
        ((9, 21, 30), (1.0, 1.0, 1.0), (10, 24, 32)),
        ((256, 224), (1.5, 1.5), (96, 96)),
        ((48, 512), (1.0, 1.0), (48, 192)),
    ],
)
def test_the_patch_for_a_cpu_is_one_that_its_plans_accept(patch, spacing, expected):
    configuration = plans_of(Tiny())["configurations"]["3d_fullres" if len(patch) == 3 else "2d"]
    configuration |= {"patch_size": [*patch], "spacing": [*spacing], "median_image_size_in_voxels": [*patch]}
    assert cpu_patch(configuration) is None  # narrow already
    configuration["architecture"]["arch_kwargs"]["features_per_stage"] = [32, 64, 128]
    assert cpu_patch(configuration) == expected
    assert cpu_patch(configuration | {"previous_stage": "3d_lowres"}) is None
    small = shrink(
        {"plans_name": "x", "configurations": {"any": configuration}}, SmallNetwork("any", patch_size=expected)
    )
    assert small["configurations"]["any"]["patch_size"] == [*expected]


def test_a_patch_is_no_larger_than_the_images():
    configuration = plans_of(Tiny(features=(32, 32, 32)))["configurations"]["2d"]
    configuration |= {"patch_size": [64, 64], "median_image_size_in_voxels": [20.0, 18.5]}
    assert cpu_patch(configuration) == (20, 20)


def test_the_commands_for_a_cpu_can_be_run(make_dataset, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    base = make_dataset(preprocess=False, features=(32, 32, 32))
    assert main(["methods", "--for", "901", "-c", "2d"]) == 0
    export, plans, preprocess, train = capsys.readouterr().out.splitlines()[-4:]
    assert export == EXPORT and train.endswith(f"-tr {FIRST_CHOICE} -p nnUNetPlans_cpu -device cpu")
    for command in (plans, f"{preprocess} -np 1"):
        assert main(shlex.split(command)[1:]) == 0
    small = json.loads((base / "nnUNetPlans_cpu.json").read_text())["configurations"]["2d"]
    assert small["patch_size"] == [16, 16] and small["architecture"]["arch_kwargs"]["features_per_stage"][0] == 8
    facts = facts_of("901", "2d", "nnUNetPlans_cpu", None)
    assert facts.cpu_patch is None and facts.raw == 0


def test_a_split_needs_a_trainer_that_knows_it():
    assert printed(FACTS, None, "l10") == [
        EXPORT,
        "nnunet_ssl plans -d 4 --split l10",
        f"nnUNetv2_train 4 3d_fullres 0 -tr {CONTROL} -p nnUNetPlans_l10",
    ]


@pytest.mark.parametrize(("need", "smaller"), [(22.9, False), (23.1, True)])
def test_plans_that_are_too_large_for_the_gpu_are_made_smaller(need, smaller):
    plans = f"-c 3d_fullres --fit 23 -tr {FIRST_CHOICE} --name nnUNetPlans_l10_smaller"
    made = printed(FACTS, split="l10", need=need)
    assert made[1] == "nnunet_ssl plans -d 4 --split l10" + (f" {plans}" if smaller else "")
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
