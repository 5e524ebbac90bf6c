from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.setting_descriptions import Description, describe
from nnunet_ssl.trainers import TRAINERS
from nnunet_ssl.training.settings import find_problems, other_default, parse_settings, setting, settings_name


@dataclass(frozen=True)
class Example:
    weight: float = setting(0.1, "weight of the term", symbol=r"\lambda", source="Table 2", low=0.0, high=10.0)
    view: str = setting("weak", "view", choices=("weak", "strong"))
    size: int | None = setting(None, "patches", low=1)
    flag: bool = setting(False, "switch")


def parse(block):
    return parse_settings({"plans_name": "p", "nnunet_ssl": block}, "nnUNetTrainerExample", Example)


def test_without_a_block_everything_is_default():
    settings = parse_settings({}, "nnUNetTrainerExample", Example)
    assert settings.split is None
    assert settings.hyperparameters == Example()
    assert settings.training.num_epochs is None


def test_values_of_the_block_are_in_force():
    settings = parse(
        {
            "split": "l10",
            "training": {"num_epochs": 5, "optimizer": "adamw", "initial_lr": 1},
            "hyperparameters": {"nnUNetTrainerExample": {"weight": 2, "size": 4}, "nnUNetTrainerMeanTeacher": {"x": 1}},
        }
    )
    assert settings.split == "l10"
    assert (settings.training.num_epochs, settings.training.optimizer, settings.training.initial_lr) == (5, "adamw", 1)
    assert settings.hyperparameters == Example(weight=2, size=4)


def test_a_length_variant_shares_the_settings_of_its_trainer():
    block = {"hyperparameters": {"nnUNetTrainerExample": {"weight": 3.0}}}
    settings = parse_settings({"nnunet_ssl": block}, "nnUNetTrainerExample_100epochs", Example)
    assert settings.hyperparameters.weight == 3.0
    assert settings_name("nnUNetTrainerExample_paper_100epochs") == "nnUNetTrainerExample_paper"


@pytest.mark.parametrize(
    "block, message",
    [
        ({"hyperparameters": {"nnUNetTrainerExample": {"wieght": 1.0}}}, 'unknown key "wieght".*allowed: weight, view'),
        (
            {"hyperparameters": {"nnUNetTrainerExample": {"weight": 11.0}}},
            "weight = 11.0 must lie between 0.0 and 10.0",
        ),
        ({"hyperparameters": {"nnUNetTrainerExample": {"weight": float("nan")}}}, "weight = nan must be a finite"),
        ({"hyperparameters": {"nnUNetTrainerExmple": {"weight": 1.0}}}, 'unknown trainer "nnUNetTrainerExmple"'),
        ({"hyperparameters": {"nnUNetTrainerExample_5epochs": {}}}, "allowed: .*nnUNetTrainerExample, .*MeanTeacher"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"weight": "big"}}}, "weight = 'big' must be float"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"weight": None}}}, "weight = None must be float"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"view": "soft"}}}, "must be one of 'weak', 'strong'"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"size": 0}}}, "size = 0 must lie between 1 and inf"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"size": True}}}, "size = True must be int"),
        ({"hyperparameters": {"nnUNetTrainerExample": {"flag": 1}}}, "flag = 1 must be bool"),
        ({"hyperparameters": {"nnUNetTrainerExample": 3}}, "must be a dictionary"),
        ({"training": {"epochs": 3}}, 'unknown key "epochs" in "training"; allowed: num_epochs'),
        ({"training": {"optimizer": "adam"}}, "must be one of 'sgd', 'adamw'"),
        ({"spilt": "l10"}, 'unknown key "spilt"'),
        ({"split": 10}, '"split" must be the name'),
        ([], "must be a dictionary with the keys"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(block, message):
    with pytest.raises(SemiSupervisedError, match=message):
        parse(block)


def test_the_settings_of_every_other_trainer_may_stand_beside():
    assert parse({"hyperparameters": {name: {} for name in TRAINERS}}).hyperparameters == Example()


def test_all_problems_are_listed_at_once():
    with pytest.raises(SemiSupervisedError) as error:
        parse({"training": {"num_epochs": 0}, "hyperparameters": {"nnUNetTrainerExample": {"a": 1, "weight": -1}}})
    assert all(part in str(error.value) for part in ("num_epochs = 0", '"a"', "weight = -1"))


def test_settings_describe_themselves():
    weight, view, size, flag = describe(Example)
    assert weight == Description("weight", r"\lambda", "0.1", "0 to 10", "weight of the term", "Table 2")
    assert (view.default, view.allowed) == ("weak", "weak, strong")
    assert (size.default, size.allowed) == ("null", "null, 1 or more")
    assert (flag.default, flag.allowed) == ("false", "true, false")


def test_a_preset_changes_a_default_and_its_source_alone():
    @dataclass(frozen=True)
    class Preset(Example):
        weight: float = other_default(Example, "weight", 2.0, source="Table 3")

    assert parse_settings({}, "nnUNetTrainerExample", Preset).hyperparameters.weight == 2.0
    assert describe(Preset) == [
        replace(describe(Example)[0], default="2.0", source="Table 3"),
        *describe(Example)[1:],
    ]
    assert find_problems(Preset, {"weight": -1.0}, "x") == ["x: weight = -1.0 must lie between 0.0 and 10.0"]
