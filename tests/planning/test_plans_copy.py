"""Plans copies: the settings block, the name, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.split_making import create_splits
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import (
    make_plans_copy,
    parse_assignments,
    parse_trainer_assignments,
    write_plans_copy,
)
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.settings import parse_settings
from tests.helpers_splits import PLANS, make_planned

TRAINING = {"num_epochs": 200, "optimizer": "adamw", "initial_lr": 0.003}
MEAN_TEACHER = "nnUNetTrainerMeanTeacher"


class TestMakePlansCopy:
    def test_only_name_and_block_differ(self):
        before = copy.deepcopy(PLANS)
        result = make_plans_copy(PLANS, "nnUNetPlans_l10", "l10", TRAINING, {MEAN_TEACHER: {"ema_decay": 0.95}})
        assert before == PLANS
        block = result.pop("nnunet_ssl")
        assert block == {
            "split": "l10",
            "training": TRAINING,
            "hyperparameters": {MEAN_TEACHER: {"ema_decay": 0.95}},
        }
        assert result.pop("plans_name") == "nnUNetPlans_l10"
        assert result == {key: value for key, value in PLANS.items() if key != "plans_name"}
        result["configurations"]["2d"]["batch_size"] = 99
        assert before == PLANS  # nothing is shared

    @pytest.mark.parametrize("configuration", list(PLANS["configurations"]))
    def test_every_configuration_keeps_its_data(self, configuration):
        result = make_plans_copy(PLANS, "other", "l10", {}, {})
        expected = PlansManager(copy.deepcopy(PLANS)).get_configuration(configuration).data_identifier
        assert PlansManager(result).get_configuration(configuration).data_identifier == expected

    def test_the_block_is_what_trainers_read(self):
        result = make_plans_copy(PLANS, "other", "l10", TRAINING, {MEAN_TEACHER: {"consistency_weight": 1}})
        trainer = find_trainer(MEAN_TEACHER)
        settings = parse_settings(result, f"{MEAN_TEACHER}_50epochs", trainer.Hyperparameters)
        assert (settings.split, settings.training.num_epochs) == ("l10", 200)
        assert settings.hyperparameters.consistency_weight == 1

    def test_length_variants_share_the_hyperparameters_of_their_trainer(self):
        result = make_plans_copy(PLANS, "other", None, {}, {f"{MEAN_TEACHER}_50epochs": {"ema_decay": 0.9}})
        assert result["nnunet_ssl"] == {"hyperparameters": {MEAN_TEACHER: {"ema_decay": 0.9}}}

    def test_a_block_of_the_source_is_merged(self):
        first = make_plans_copy(PLANS, "a", "l10", TRAINING, {MEAN_TEACHER: {"ema_decay": 0.9, "noise_std": 0.2}})
        second = make_plans_copy(first, "b", None, {"num_epochs": 5}, {MEAN_TEACHER: {"noise_std": 0.3}})
        assert second["nnunet_ssl"] == {
            "split": "l10",
            "training": {**TRAINING, "num_epochs": 5},
            "hyperparameters": {MEAN_TEACHER: {"ema_decay": 0.9, "noise_std": 0.3}},
        }
        assert make_plans_copy(first, "b", "l20", {}, {})["nnunet_ssl"]["split"] == "l20"
        assert first["nnunet_ssl"]["training"] == TRAINING

    def test_all_problems_at_once(self):
        with pytest.raises(SemiSupervisedError) as caught:
            make_plans_copy(
                PLANS,
                "a__b",
                "l10",
                {"epochs": 3, "num_epochs": 0, "optimizer": "lion", "initial_lr": "fast"},
                {MEAN_TEACHER: {"ema": 0.9, "ema_decay": 2.0}, "nnUNetTrainerNope": {"a": 1}},
            )
        for problem in (
            '"a__b"',
            'unknown key "epochs" in "training"; allowed: num_epochs',
            "num_epochs = 0 must lie between 1",
            "optimizer = 'lion' must be one of 'sgd', 'adamw'",
            "initial_lr = 'fast' must be float",
            f'unknown key "ema" in "hyperparameters" of {MEAN_TEACHER}; allowed: ',
            "ema_decay = 2.0 must lie between 0.0 and 1.0",
            'unknown trainer "nnUNetTrainerNope": nnU-Net does not find it. Run: nnunet_ssl methods',
        ):
            assert problem in str(caught.value)

    @pytest.mark.parametrize("block", [[], {"training": []}, {"hyperparameters": 3}])
    def test_damaged_block_of_the_source(self, block):
        with pytest.raises(SemiSupervisedError, match="is damaged"):
            make_plans_copy({**PLANS, "nnunet_ssl": block}, "a", None, {}, {})

    @pytest.mark.parametrize("split", [["x"], 3, {"a": 1}])
    def test_a_split_of_the_source_that_is_no_name(self, split):
        with pytest.raises(SemiSupervisedError, match='"split" must be the name of a split'):
            make_plans_copy({**PLANS, "nnunet_ssl": {"split": split}}, "a", None, {}, {})

    def test_unknown_key_in_the_block_of_the_source(self):
        with pytest.raises(SemiSupervisedError, match='unknown key "spilt"'):
            make_plans_copy({**PLANS, "nnunet_ssl": {"spilt": "l10"}}, "a", None, {}, {})


class TestWritePlansCopy:
    @pytest.fixture
    def base(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        base = make_planned(tmp_path, monkeypatch)
        create_splits(4, fractions=[0.1, 0.25])
        return base

    def test_the_copy_stands_beside_its_source(self, base):
        source = (base / "nnUNetPlans.json").read_bytes()
        result = write_plans_copy(4, split="l10", training=TRAINING)
        assert Path(result.path) == base / "nnUNetPlans_l10.json"
        assert (result.merged, result.unchanged) == (False, False)
        assert json.loads(Path(result.path).read_text()) == result.plans
        assert (base / "nnUNetPlans.json").read_bytes() == source
        assert not list(base.glob("*.tmp"))

    def test_unknown_split(self, base):
        with pytest.raises(SemiSupervisedError, match=r'no split "l5". Available: l10, l25'):
            write_plans_copy(4, split="l5")
        assert not (base / "nnUNetPlans_l5.json").exists()

    def test_no_splits_at_all(self, base):
        (base / "splits_ssl.json").unlink()
        with pytest.raises(SemiSupervisedError, match="nnunet_ssl splits -d"):
            write_plans_copy(4, split="l10")
        assert write_plans_copy(4, name="all_labels", training=TRAINING).plans["nnunet_ssl"] == {
            "training": TRAINING,
            "source": "nnUNetPlans",
        }

    def test_a_split_carried_by_the_source_must_exist_too(self, base):
        write_plans_copy(4, split="l10")
        create_splits(4, fractions=[0.1], names=["other"])
        (base / "splits_ssl.json").unlink()
        create_splits(4, fractions=[0.25])
        with pytest.raises(SemiSupervisedError, match=r'no split "l10"'):
            write_plans_copy(4, plans_identifier="nnUNetPlans_l10", name="b")

    def test_a_name_is_needed_without_a_split(self, base):
        with pytest.raises(SemiSupervisedError, match="--split or --name"):
            write_plans_copy(4, training=TRAINING)

    @pytest.mark.parametrize("name", ["dataset", "splits_ssl", "dataset_fingerprint", "splits_final"])
    def test_other_files_of_the_folder_are_safe(self, base, name):
        with pytest.raises(SemiSupervisedError, match="another file"):
            write_plans_copy(4, name=name, overwrite=True)

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_plans_of_nnunet_are_never_replaced(self, base, overwrite):
        before = (base / "nnUNetPlans.json").read_bytes()
        with pytest.raises(SemiSupervisedError, match="not written by this command"):
            write_plans_copy(4, name="nnUNetPlans", split="l10", overwrite=overwrite)
        assert (base / "nnUNetPlans.json").read_bytes() == before

    def test_the_same_again_changes_nothing(self, base):
        path = Path(write_plans_copy(4, split="l10", training=TRAINING).path)
        before = path.stat().st_mtime_ns
        assert write_plans_copy(4, split="l10", training=TRAINING).unchanged
        assert path.stat().st_mtime_ns == before

    def test_other_content_needs_overwrite(self, base):
        path = Path(write_plans_copy(4, split="l10", training=TRAINING).path)
        before = path.read_bytes()
        with pytest.raises(SemiSupervisedError, match="--overwrite"):
            write_plans_copy(4, split="l10")
        assert path.read_bytes() == before
        write_plans_copy(4, split="l10", overwrite=True)
        assert json.loads(path.read_text())["nnunet_ssl"] == {"split": "l10", "source": "nnUNetPlans"}

    def test_settings_are_changed_in_place_with_overwrite(self, base):
        write_plans_copy(4, split="l10", training=TRAINING)
        name = "nnUNetPlans_l10"
        result = write_plans_copy(4, plans_identifier=name, name=name, training={"num_epochs": 3}, overwrite=True)
        assert result.merged
        assert result.plans["nnunet_ssl"] == {
            "split": "l10",
            "training": {**TRAINING, "num_epochs": 3},
            "source": "nnUNetPlans",
        }

    def test_a_copy_of_a_copy_names_it(self, base):
        write_plans_copy(4, split="l10", training=TRAINING)
        assert write_plans_copy(4, plans_identifier="nnUNetPlans_l10", name="b").plans["nnunet_ssl"]["source"] == (
            "nnUNetPlans_l10"
        )

    def test_a_copy_written_before_the_source_was_recorded_stays(self, base):
        path = Path(write_plans_copy(4, split="l10").path)
        plans = json.loads(path.read_text())
        del plans["nnunet_ssl"]["source"]
        path.write_text(json.dumps(plans))
        assert write_plans_copy(4, split="l10").unchanged
        assert json.loads(path.read_text()) == plans


class TestParsing:
    def test_values(self):
        items = ["a=3", "b=0.1", "c=1e-3", "d=true", "e=null", "f=adamw", "g=[1, 2]", 'h="7"', "i=", "j=x=y"]
        assert parse_assignments(items) == {
            "a": 3,
            "b": 0.1,
            "c": 0.001,
            "d": True,
            "e": None,
            "f": "adamw",
            "g": [1, 2],
            "h": "7",
            "i": "",
            "j": "x=y",
        }

    def test_all_unreadable_items_are_listed(self):
        with pytest.raises(SemiSupervisedError) as caught:
            parse_assignments(["a", "=3", "b=1", "b=2"])
        for word in ('"a" is not', '"=3" is not', '"b" is given twice'):
            assert word in str(caught.value)

    def test_trainers(self):
        items = ["T:a=1", "T_50epochs:b=x:y", "U:a=2"]
        assert parse_trainer_assignments(items) == {"T": {"a": 1, "b": "x:y"}, "U": {"a": 2}}

    @pytest.mark.parametrize("item", ["a=1", "nonsense"])
    def test_trainer_missing(self, item):
        with pytest.raises(SemiSupervisedError, match="TRAINER:key=value"):
            parse_trainer_assignments([item])
