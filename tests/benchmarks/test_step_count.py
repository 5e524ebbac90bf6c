"""step_time.py --count, and the parts of a step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import step_count
import step_time
import torch
from step_parts import BACKWARD, FORWARD, LOADER, OPTIMISER, VIEWS, StepParts

from nnunet_ssl.planning.stand_in import make_trainer, stand_in_folders, training_batch
from tests.planning.small_plan import DATASET_JSON, small_plan, trainer_class


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Runs step_time.py with --count on a plan of a few features; gives what --json wrote."""

    def run(*arguments: str) -> dict:
        plans = small_plan("nnUNetTrainer")
        for name, content in (("plans", plans), ("dataset", DATASET_JSON)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        given = [f"--{key}={tmp_path / name}.json" for key, name in (("plans", "plans"), ("dataset-json", "dataset"))]
        out = tmp_path / "out.json"
        monkeypatch.setattr(step_count, "trainer_class", trainer_class)  # nnU-Net's search takes longer than all else
        monkeypatch.setattr(sys, "argv", ["step_time.py", "--count", "-c", "2d", *given, f"--json={out}", *arguments])
        step_time.main()
        return json.loads(out.read_text())

    return run


def test_ratios_to_nnunets_step_on_as_many_patches(script):
    rows = {row["trainer"]: row for row in script("-tr", "nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher")["rows"]}
    stock, control, teacher = rows.values()
    assert [row["patches"] for row in rows.values()] == [2, 2, 4]
    assert stock["flops_ratio"] == control["flops_ratio"] == stock["saved_ratio"] == 1
    # a third of the operations are of the forward pass, and the teacher's is on half of the patches
    assert teacher["flops_ratio"] == pytest.approx(7 / 6, abs=0.01)
    assert teacher["backward_gflop"] == pytest.approx(2 * stock["backward_gflop"])
    assert teacher["forward_gflop"] == pytest.approx(3 * stock["forward_gflop"], rel=0.01)  # no coarse outputs


def test_mixed_precision_halves_what_is_kept(script):
    half, full = (script("-tr", "nnUNetTrainerSupervised", *options)["rows"][1] for options in ((), ("--float32",)))
    assert half["forward_gflop"] == full["forward_gflop"]
    assert 0.45 < half["saved_gib"] / full["saved_gib"] < 0.7


def test_parts_of_a_step_are_the_whole_step():
    device, name = torch.device("cpu"), "nnUNetTrainerFixMatch"
    plans = small_plan(name)
    with stand_in_folders(plans, "2d"):
        trainer = make_trainer(trainer_class(name), plans, "2d", DATASET_JSON, device)
        batch = training_batch(trainer, 2, device)
        clock = StepParts(trainer, lambda: batch)
        moments = iter(range(10**6))
        clock._now = lambda: float(next(moments))  # a second passes with each look at the clock
        clock.step()
    seconds = clock.means()
    # split and one strong view: away from the forward pass and back, twice
    assert seconds[VIEWS] == 2 and seconds[FORWARD] == 3 and seconds[BACKWARD] == seconds[LOADER] == 1
    assert sum(seconds.values()) == next(moments) - 1 and seconds[OPTIMISER] == 1
