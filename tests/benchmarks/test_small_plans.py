"""benchmarks/small_plans.py: `nnunet_ssl plans` with other defaults, all of which an option overrides."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import small_plans


@pytest.mark.parametrize(
    ("options", "name", "configuration", "patch", "batch", "spacing"),
    [
        (["--patch", "8", "16", "16"], "nnUNetPlans_small", "3d_fullres", [8, 16, 16], 2, [1.0] * 3),
        (["-c", "2d", "--patch", "16", "8", "--batch", "4", "--spacing", "2", "--features", "3", "5", "--name", "a"],
         "a", "2d", [16, 8], 4, [2.0] * 2),
    ],
)  # fmt: skip
def test_a_copy_of_the_plans(make_dataset, monkeypatch, capsys, options, name, configuration, patch, batch, spacing):
    dataset = make_dataset(preprocess=False)
    monkeypatch.setattr(sys, "argv", ["small_plans.py", "-d", "901", *options])
    assert small_plans.main() == 0
    assert str(dataset / f"{name}.json") in capsys.readouterr().out
    written = json.loads((dataset / f"{name}.json").read_text())["configurations"][configuration]
    assert (written["patch_size"], written["batch_size"], written["spacing"]) == (patch, batch, spacing)
