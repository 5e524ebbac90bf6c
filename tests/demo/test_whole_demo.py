"""README's demo with fewer cases and steps: every command of it, the table and the picture."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from nnunet_ssl.cli import build_parser, main
from nnunet_ssl.demo import runner, steps
from nnunet_ssl.demo.steps import Step
from nnunet_ssl.demo.synthetic import STANDARD_SIZES, Sizes
from tests.integration.command_server import run_forked
from tests.integration.commands import FORK_POOLS

README = "nnunet_ssl demo"
SMALL = Sizes(labeled=2, unlabeled=2, test=1)
FEW_STEPS = ("num_iterations_per_epoch=2", *steps.TRAINING[1:], "mirror_axes=[]")


def forked(step: Step, log: Path, variables: dict[str, str]) -> float:
    """As a process of its own would do it, without the imports."""
    start = time.monotonic()
    log.parent.mkdir(exist_ok=True)
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FORK_POOLS)}
    own |= {"nnUNet_n_proc_DA": "0"} if step.command[0] == "nnUNetv2_train" else {}
    code = run_forked([*step.command], {**os.environ, **variables, **own}, str(log.parents[1]), str(log))
    assert code == 0, log.read_text(errors="replace")[-4000:]
    return time.monotonic() - start


@pytest.mark.pages
def test_from_data_to_table_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", "")
    monkeypatch.setattr(runner, "STANDARD_SIZES", SMALL)
    monkeypatch.setattr(steps, "TRAINING", FEW_STEPS)
    monkeypatch.setattr(runner, "run_command", forked)
    monkeypatch.chdir(tmp_path)
    assert main([*README.split()[1:], "--epochs", "1"]) == 0
    said, output = capsys.readouterr().out, tmp_path / "demo_output"
    assert "[1/10] 2 labelled, 2 unlabelled and 1 test cases" in said and "already done" not in said
    assert "Dice on the test cases" in said and f"Picture: {output / 'comparison.png'}" in said
    numbers = json.loads((output / "results.json").read_text())
    assert {"nnUNetTrainerSupervised", "nnUNetTrainerFixMatch"} == numbers.keys()
    assert all(0 <= own["mean_dice"] <= 1 for own in numbers.values())
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")

    assert main([*README.split()[1:], "--epochs", "1"]) == 0  # nothing is trained twice
    assert capsys.readouterr().out.count("already done") == 9


def test_the_help_names_the_sizes_of_the_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser("demo").parse_args(["demo", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    sizes = STANDARD_SIZES
    assert f"train the control on {sizes.labeled} labelled cases" in text
    assert f"with {sizes.unlabeled} unlabelled ones in addition, predict {sizes.test} test cases" in text
