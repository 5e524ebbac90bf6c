"""What `nnunet_ssl methods` says of a step's time is what docs/benchmarks/cost.md counted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.card import MethodCard

COST = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "cost.md"
ROW = re.compile(r"^\| `(nnUNetTrainer\w+)` \|((?: [\d.]+ \|){8})$", re.MULTILINE)
RATIO = re.compile(r"(?P<ratio>\d+(?:\.\d+)?)(?: \((?P<dimensions>[23]D)\))?")
OF_A_CPU = "CPU"  # a time that was measured, not counted
OF_AN_OPTION = "decoder"  # MC-Net with one more decoder, which cost.md does not count
WITHOUT_TEACHER = {"nnUNetTrainerLDC_released"}  # whatever its settings say


def counted() -> dict[str, dict[str, float]]:
    """Trainer -> dimensions -> operations, as a ratio to nnU-Net's."""
    rows = {}
    for name, cells in ROW.findall(COST.read_text(encoding="utf-8")):
        numbers = [float(cell) for cell in cells.split("|")[:8]]
        rows[name] = {"3D": numbers[1], "2D": numbers[5]}
    return rows


def said(text: str) -> list[tuple[float, str | None]]:
    parts = (part for part in text.split(";") if OF_A_CPU not in part and OF_AN_OPTION not in part)
    return [(float(found["ratio"]), found["dimensions"]) for part in parts for found in RATIO.finditer(part)]


def wrong(text: str, operations: dict[str, float]) -> list[float]:
    """Ratios of a card that are more than a tenth off; one without dimensions has to be right in 3D."""
    return [
        ratio
        for ratio, dimensions in said(text)
        if abs(ratio - operations[dimensions or "3D"]) > 0.1 * operations[dimensions or "3D"]
    ]


@pytest.mark.parametrize("name", [name for name in TRAINERS if name in counted()])
def test_the_card_says_what_was_counted(name: str):
    """Of presets, too, which have a card of their own where they differ from their method."""
    trainer: Any = find_trainer(name)
    ratios = said(trainer.card.extra_time)
    assert ratios or OF_A_CPU in trainer.card.extra_time
    assert wrong(trainer.card.extra_time, counted()[name]) == []
    for dimensions in (2, 3):  # what a recommendation multiplies
        assert 0 < trainer.card.step_ratio(dimensions) < 10


def test_cost_md_has_every_trainer():
    without = TRAINERS.keys() - counted().keys()
    assert without == {"nnUNetTrainerPublishedSupervised"}  # the control under a publication's recipe


@pytest.mark.parametrize("name", TRAINERS)
def test_the_card_names_the_network_that_predicts(name: str):
    """The default of predict_with first; no teacher where there is none."""
    trainer: Any = find_trainer(name)
    settings, predicts = trainer.Hyperparameters(), trainer.card.predicts
    if name in WITHOUT_TEACHER or getattr(settings, "teacher", "ema") == "none":
        assert predicts == "the network" and "copy of" not in trainer.card.extra_memory
    elif hasattr(settings, "predict_with"):
        assert predicts.startswith(settings.predict_with)
    else:
        assert "teacher" not in predicts


def test_the_ratio_of_a_card():
    card = MethodCard("paper", "the network", "2D, 3D", "none", "2.5 (3D), 3.2 (2D) in operations; 4 (3D) on a CPU")
    assert (card.step_ratio(2), card.step_ratio(3)) == (3.2, 2.5)
    assert replace(card, extra_time="about 1.2").step_ratio(2) == 1.2


def test_what_is_compared():
    operations = {"3D": 2.0, "2D": 3.0}
    assert wrong("about 2.1", operations) == wrong("2.1 (3D), 2.8 (2D); 9 on a CPU", operations) == []
    assert wrong("about 2.3", operations) == [2.3]
    assert wrong("2.0 (3D), 2.0 (2D)", operations) == [2.0]
