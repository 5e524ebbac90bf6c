"""benchmarks/gpu.sh on a CPU: its commands are recorded, then each is run in this process on a tiny plan."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.running import write_split

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import gpu_table
import step_time

BENCHMARKS = Path(gpu_table.__file__).parent
RECORDER = '#!/usr/bin/env bash\nprintf "%q " "$@" >>"$RECORD"; echo >>"$RECORD"\n'
FED = "nnUNetTrainerFixMatch"


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Runs gpu.sh with programs that only record what they are asked, and gives the commands."""
    record = tmp_path / "record"
    for name in ("python", "nnUNetv2_plan_and_preprocess", "nnunet_ssl"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(RECORDER.replace('"$@"', f'{name} "$@"'))
        program.chmod(0o755)

    def run(*words: str, **variables: str) -> list[list[str]]:
        record.write_text("")
        env = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RECORD": str(record)} | variables
        subprocess.run(["bash", str(BENCHMARKS / "gpu.sh"), *words], env=env, check=True, capture_output=True)
        return [shlex.split(line) for line in record.read_text().splitlines()]

    return run


@pytest.fixture
def planned(make_dataset, monkeypatch):
    """The id of a dataset with plans and the split of gpu.sh; memory is not measured, which takes processes."""
    dataset = make_dataset()
    write_split(dataset, name="l10")
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_compile"):
        monkeypatch.setenv(variable, os.environ.get(variable, "f"))  # step_time.py changes them
    monkeypatch.setattr(step_time, "memory_in_child", lambda name, *rest: 1.0)
    monkeypatch.setattr(step_time, "get_context", lambda method: SimpleNamespace(Pool=NoPool))
    return str(int(dataset.name[7:10]))


class NoPool:
    """A pool of processes that calls in this one."""

    def __init__(self, *args, **kwargs):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def apply(self, call, words):
        return call(*words)


def test_its_parts_end_in_one_table(script, planned, tmp_path, monkeypatch, capsys):
    out, number, preprocessed = tmp_path / "out", planned, os.environ["nnUNet_preprocessed"]
    commands = script(str(out), f"{number}:2d", DEVICE="cpu", TRAINERS=FED, FED=FED, STEPS="1")
    steps = [words[2:] for words in commands if words[1].endswith("step_time.py")]
    assert [Path(w[w.index("--json") + 1]).stem.split("_")[0] for w in steps] == ["eager", "loaders", "compiled"]
    for words in steps:
        monkeypatch.setenv("nnUNet_preprocessed", preprocessed)
        step_time.main([word for word in words if word != "--compile"])
    capsys.readouterr()
    gpu_table.main([str(out)])
    table = capsys.readouterr().out
    assert f"Dataset {number}, 2d, patch" in table and "share of the step" in table
    assert f"nnU-Net {version('nnunetv2')}, torch {torch.__version__}" in table
    row = next(line for line in table.splitlines() if line.startswith(f"| `{FED}`")).split(" | ")
    found = json.loads((out / f"eager_{number}.json").read_text())["rows"][1]
    assert row[1:3] == [f"{found['step_s']:.4f}", f"{found['time_ratio']:.2f}"]
    assert len(row) == 7 and all(cell.strip(" |") for cell in row)


def test_on_a_gpu_it_prepares_tests_and_leaves_out_what_is_late(script, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    commands = script(str(tmp_path / "out"), "4:3d_fullres", "27:2d")
    assert commands[0] == ["nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres"]
    assert commands[1] == ["nnunet_ssl", "splits", "-d", "4", "--fractions", "0.1"]
    assert sum("pytest" in words for words in commands) == 1
    assert sum("--compile" in words for words in commands) == 2
    late = script(str(tmp_path / "out"), "4:3d_fullres", MINUTES="0")
    assert [Path(words[1]).name for words in late] == ["gpu_table.py"]
    assert "compiled_4: left out after 0 minutes" in (tmp_path / "out" / "problems.txt").read_text()


def test_a_trainer_that_fails_stops_no_other(planned, tmp_path, monkeypatch, capsys):
    make = step_time.step_of

    def fails(name, *rest):
        if name == FED:
            raise torch.OutOfMemoryError("too little memory")
        return make(name, *rest)

    monkeypatch.setattr(step_time, "step_of", fails)
    file = tmp_path / "eager_1.json"
    words = ["-d", planned, "-c", "2d", "-tr", FED, "nnUNetTrainerSupervised", "--steps", "1", "--json", str(file)]
    step_time.main(words)
    found = json.loads(file.read_text())
    assert found["failed"] == {FED: "too little memory"}
    assert [row["trainer"] for row in found["rows"]] == [step_time.STOCK, "nnUNetTrainerSupervised"]
    gpu_table.main([str(tmp_path)])
    assert f"- `{FED}`: too little memory" in capsys.readouterr().out
