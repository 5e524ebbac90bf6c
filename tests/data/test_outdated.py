"""Plans copies older than their source, labelled data of other plans: what is refused, and what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data.outdated import Outdated, find_outdated
from nnunet_ssl.data.plans_block import BLOCK
from nnunet_ssl.data.plans_source import source_of
from nnunet_ssl.data.rewriting import rewriting_command
from nnunet_ssl.planning.plans_copy import parse_settings_of_all, write_plans_copy
from tests.planned_again import change_plans, plan_again, preprocess_labeled

PREPROCESS = "nnUNetv2_preprocess -d 901 -c 3d_fullres -plans_name nnUNetPlans"
UNLABELLED = "nnunet_ssl preprocess -d 901 -c 3d_fullres -p nnUNetPlans"
WRITE = "nnunet_ssl plans -d 901 -p nnUNetPlans --name q --training num_epochs=3 --overwrite"
CT = {"ct": True, "unlabeled": 1, "labeled": 3}


def write_copy(name: str = "q", source: str = "nnUNetPlans") -> None:
    write_plans_copy(901, plans_identifier=source, name=name, training={"num_epochs": 3})


def found(base: Path, name: str = "q", configuration: str = "3d_fullres") -> Outdated | None:
    plans, dataset_json = (json.loads((base / f"{n}.json").read_text()) for n in (name, "dataset"))
    return find_outdated(str(base), plans, [configuration], dataset_json)


def forget_source(base: Path, name: str = "q") -> None:
    """As copies were written before they named it."""
    change_plans(base, lambda plans: plans[BLOCK].pop("source"), name)


# ---- what is refused


@pytest.mark.parametrize("recorded", [True, False])
def test_a_copy_older_than_its_source(make_dataset, recorded):
    base = make_dataset(**CT)
    write_copy()
    if not recorded:
        forget_source(base)
    assert found(base) is None
    plan_again(base)
    preprocess_labeled(base)
    outdated = found(base)
    assert outdated is not None
    assert outdated.summary.startswith("q is older than nnUNetPlans: write it again.")
    assert outdated.problems == ["3d_fullres: foreground_intensity_properties_per_channel"]
    assert outdated.commands == [UNLABELLED, WRITE]  # the labelled cases are up to date
    assert found(base, "nnUNetPlans") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", [1.0, 1.0, 2.0]),
        ("normalization_schemes", ["ZScoreNormalization"]),
        ("use_mask_for_norm", [True]),
        ("resampling_fn_data", "resample_torch_fornnunet"),
        ("resampling_fn_seg_kwargs", {"is_seg": True, "order": 0, "order_z": 0, "force_separate_z": None}),
        ("preprocessor_name", "OtherPreprocessor"),
    ],
)
def test_every_setting_of_preprocessing_counts(make_dataset, key, value):
    base = make_dataset(**CT)
    write_copy()
    change_plans(base, lambda plans: plans["configurations"]["3d_fullres"].update({key: value}))
    assert [problem.split(", ")[0] for problem in found(base).problems] == [f"3d_fullres: {key}"]
    assert found(base, configuration="2d") is None  # its data are those of before


@pytest.mark.parametrize(("key", "value"), [("transpose_forward", [2, 0, 1]), ("image_reader_writer", "NibabelIO")])
def test_settings_of_all_configurations_count(make_dataset, key, value):
    base = make_dataset(**CT)
    write_copy()
    change_plans(base, lambda plans: plans.update({key: value}))
    assert found(base).problems == [f"3d_fullres: {key}"]
    assert found(base, configuration="2d").problems == [f"2d: {key}"]


def test_a_copy_of_a_copy_is_renewed_after_it(make_dataset):
    base = make_dataset(**CT, preprocess=False)
    write_copy("first")
    write_copy("second", "first")
    plan_again(base)
    preprocess_labeled(base)
    commands = found(base, "second").commands
    assert [command.split(" --training")[0] for command in commands] == [
        "nnunet_ssl plans -d 901 -p nnUNetPlans --name first",
        "nnunet_ssl plans -d 901 -p first --name second",
    ]
    assert main(commands[0].split()[1:]) == 0
    assert found(base, "first") is None and found(base, "second").commands == commands[1:]
    assert main(commands[1].split()[1:]) == 0
    assert found(base, "second") is None


def test_labelled_cases_that_are_old_come_first(make_dataset):
    base = make_dataset(**CT)
    write_copy()
    plan_again(base)
    assert found(base).commands == [PREPROCESS, UNLABELLED, WRITE]
    for plans in ("q", "nnUNetPlans"):  # written again too early, the copy is refused for the data
        outdated = found(base, plans)
        assert outdated.commands[:2] == [PREPROCESS, UNLABELLED]
        main(WRITE.split()[1:])
    assert "clipped at" in found(base).problems[0]


def test_labelled_cases_of_another_spacing(make_dataset):
    base = make_dataset(preprocess=False, unlabeled=0)
    change_plans(base, lambda plans: plans["configurations"]["3d_fullres"].update(spacing=[1.0, 0.5, 2.0]))
    outdated = found(base, "nnUNetPlans")
    assert len(outdated.problems) == 3 and outdated.commands == [PREPROCESS]
    assert outdated.problems[0].endswith("tiny_000: size 20 x 22 x 18, with these plans it is 20 x 44 x 9")
    preprocess_labeled(base)
    assert found(base, "nnUNetPlans") is None


def test_values_beyond_the_bounds_of_the_plans(make_dataset):
    base = make_dataset(**CT, preprocess=False)
    change_plans(
        base, lambda plans: plans["foreground_intensity_properties_per_channel"]["0"].update(percentile_99_5=7.0)
    )
    assert "these plans allow -2.495 to 0.769" in found(base, "nnUNetPlans").problems[0]
    preprocess_labeled(base)
    assert found(base, "nnUNetPlans") is None


def test_resampled_cases_keep_their_bounds(make_dataset):
    base = make_dataset(**CT, preprocess=False)
    change_plans(base, lambda plans: plans["configurations"]["3d_fullres"].update(spacing=[1.0, 0.7, 1.6]))
    preprocess_labeled(base)
    assert found(base, "nnUNetPlans") is None


def test_a_copy_made_by_hand_is_put_aside(make_dataset):
    base = make_dataset(**CT, preprocess=False)
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [8, 8, 8]
    (base / "mine.json").write_text(json.dumps({**plans, "plans_name": "mine"}))
    plan_again(base)
    preprocess_labeled(base)
    outdated = found(base, "mine")
    assert outdated.remark == "Its patch_size are then those of nnUNetPlans; your own changes have to be repeated."
    assert outdated.commands == [
        f"mv {base}/mine.json {base}/mine.json.old",
        "nnunet_ssl plans -d 901 -p nnUNetPlans --name mine --overwrite",
    ]


def test_plans_of_another_planner_for_the_same_data(make_dataset):
    """nnU-Net's planners of residual networks use the data of nnUNetPlans; only one of the two was planned again."""
    base = make_dataset(**CT, preprocess=False)
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    plans |= {"plans_name": "ResEnc", "experiment_planner_used": "nnUNetPlannerResEncM"}
    (base / "ResEnc.json").write_text(json.dumps(plans))
    write_copy("q", "ResEnc")
    plan_again(base)
    preprocess_labeled(base)
    for name in ("ResEnc", "q"):
        outdated = found(base, name)
        assert outdated.summary.endswith("They fit nnUNetPlans, which is the newer one.")
        first = "nnUNetv2_plan_experiment -d 901 -pl nnUNetPlannerResEncM -overwrite_plans_name ResEnc"
        assert outdated.commands[0] == first
    preprocess_labeled(base, "ResEnc")
    assert found(base, "ResEnc") is None and found(base, "q") is None
    assert found(base, "nnUNetPlans").commands[0].startswith("nnUNetv2_plan_experiment")


# ---- what is not


def test_another_patch_batch_and_network(make_dataset):
    base = make_dataset(**CT)
    write_copy()

    def change(plans):
        plans["configurations"]["3d_fullres"].update(patch_size=[8, 8, 8], batch_size=7, batch_dice=True)
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [2, 4, 4]

    for name in ("q", "nnUNetPlans"):
        change_plans(base, change, name)
        assert found(base) is None


def test_new_intensities_that_no_normalisation_uses(make_dataset):
    base = make_dataset()
    write_copy()
    plan_again(base)
    assert found(base) is None and found(base, "nnUNetPlans") is None


def test_moved_plans(make_dataset):
    base = make_dataset(**CT)
    plans = json.loads((base / "nnUNetPlans.json").read_text())
    for configuration in plans["configurations"].values():  # as nnUNetv2_move_plans_between_datasets renames
        if "data_identifier" in configuration:
            configuration["data_identifier"] = "Moved" + configuration["data_identifier"].removeprefix("nnUNetPlans")
    (base / "Moved.json").write_text(json.dumps({**plans, "plans_name": "Moved"}))
    shutil.copytree(base / "nnUNetPlans_3d_fullres", base / "Moved_3d_fullres")
    write_copy("q", "Moved")
    plan_again(base)
    assert source_of(str(base), plans | {"plans_name": "Moved"}) is None
    assert found(base, "Moved") is None and found(base, "q") is None


def test_a_folder_on_another_machine(make_dataset):
    """Without raw data, without the source of the copy, all files with other dates."""
    base = make_dataset(**CT)
    write_copy()
    shutil.rmtree(base.parents[1] / "nnUNet_raw")
    (base / "nnUNetPlans.json").touch()
    assert found(base) is None and found(base, "nnUNetPlans") is None
    (base / "nnUNetPlans.json").unlink()
    assert found(base) is None
    forget_source(base)
    assert found(base) is None


@pytest.mark.parametrize("shape", [(20, 22, 18), (8, 22, 24)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 1.0, 1.3)])
def test_data_as_nnunet_makes_them(make_dataset, shape, spacing):
    base = make_dataset(**CT, preprocess=False, shape=shape, spacing=spacing)
    for name in ("2d", "3d_fullres"):
        target = [1.1, 0.9] if name == "2d" else [2.0, 1.1, 0.9]
        change_plans(base, lambda plans, n=name, t=target: plans["configurations"][n].update(spacing=t))
        preprocess_labeled(base, configuration=name)
        assert found(base, "nnUNetPlans", name) is None


# ---- the command


@pytest.mark.parametrize("value", [3, 0.1, True, None, "adamw", "7", "null", [0, 2], "a b", "it's"])
def test_the_command_says_every_setting_as_it_is(value):
    import shlex

    block = {
        "split": "l10",
        "training": {"key": value, "other": 1},
        "hyperparameters": {"A": {"key": value}, "B": {"x": 1, "y": value}, "C": {}},
    }
    words = shlex.split(rewriting_command(4, {"plans_name": "q", BLOCK: block}, "nnUNetPlans", {}))
    assert words[:10] == ["nnunet_ssl", "plans", "-d", "4", "-p", "nnUNetPlans", "--name", "q", "--split", "l10"]
    middle = words.index("--hyperparameters")
    training, hyperparameters = parse_settings_of_all(words[11:middle], words[middle + 1 : -1])
    assert words[10] == "--training" and words[-1] == "--overwrite"
    assert training == block["training"]
    assert hyperparameters == {"A": {"key": value}, "B": {"x": 1, "y": value}}


def test_the_command_repeats_a_small_network_unless_its_source_has_it():
    import shlex

    own = {"patch_size": [96, 96], "batch_size": 8, "spacing": [3.125, 3.125]}
    own["architecture"] = {"arch_kwargs": {"features_per_stage": [8, 16]}}
    plans = {"plans_name": "q", "configurations": {"2d": own}, BLOCK: {"changed": {"2d": ["spacing", "patch_size"]}}}
    words = shlex.split(rewriting_command(4, plans, "nnUNetPlans", {}))
    assert words[8:] == (
        [
            "-c",
            "2d",
            "--features",
            "8",
            "16",
            "--patch",
            "96",
            "96",
            "--batch",
            "8",
            "--spacing",
            "3.125",
            "3.125",
            "--overwrite",
        ]
    )
    assert "--features" not in rewriting_command(4, plans, "small", plans)
