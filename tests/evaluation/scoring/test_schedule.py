"""Small jobs in one process, large ones on several."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK

from nnunet_ssl.evaluation.scoring import schedule
from nnunet_ssl.evaluation.scoring.case import CaseResult, Rules
from nnunet_ssl.evaluation.scoring.evaluate import evaluate_folder
from nnunet_ssl.evaluation.scoring.labels import Labels
from nnunet_ssl.evaluation.scoring.schedule import pays_off, score_cases, usable_cores
from tests.evaluation.scoring.folders import Folders

RULES = Rules("SimpleITKIO", Labels((), frozenset(), None), False, 1.0)
FILES = {case: (f"{case} reference", f"{case} prediction") for case in "cab"}


def test_what_pays_off():
    assert not pays_off(0.5, 1, 1000)  # too early to tell
    assert not pays_off(3.0, 60, 100)  # 5 s
    assert pays_off(3.0, 1, 9)  # 27 s
    assert not pays_off(100.0, 1, 1)  # a single case cannot be shared


def test_one_process_keeps_the_order_and_only_checks_after_a_problem(monkeypatch, capfd):
    calls = []

    def fake(case, reference, prediction, rules, score):
        calls.append((case, reference, prediction, rules, score))
        return CaseResult(problems=("bad",) if case == "a" else ())

    monkeypatch.setattr(schedule, "score_case", fake)
    assert [*score_cases(FILES, RULES, 1)] == ["c", "a", "b"]
    assert calls == [(case, *FILES[case], RULES, score) for case, score in (("c", True), ("a", True), ("b", False))]
    assert "3/3" in capfd.readouterr().err


def test_never_more_processes_than_cores_or_cases(monkeypatch):
    asked = []

    class Workers(schedule.Workers):
        def __init__(self, num_processes):
            asked.append(num_processes)
            super().__init__(1)

    monkeypatch.setattr(schedule, "Workers", Workers)
    monkeypatch.setattr(schedule, "pays_off", lambda elapsed, done, remaining: True)
    monkeypatch.setattr(schedule, "score_case", lambda *args: CaseResult())
    for cores, processes, expected in ((16, 8, 2), (16, 2, 2), (2, 8, 2), (1, 8, None), (16, 1, None)):
        monkeypatch.setattr(schedule, "usable_cores", lambda cores=cores: cores)
        assert len(score_cases(FILES, RULES, processes)) == 3
        assert asked == ([expected] if expected else [])
        asked.clear()
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.slow
def test_several_processes_give_the_same(tmp_path, monkeypatch):
    folders = Folders(tmp_path, cases=())
    rng = np.random.default_rng(0)
    for case in ("one", "two", "three"):  # everything missed, so that no worker has to import MONAI
        reference = rng.integers(0, 3, (5, 6, 7)).astype(np.uint8)
        folders.add(case, reference, np.zeros_like(reference), spacing=(1.0, 2.0, 3.0))
    alone = evaluate_folder(*folders.paths, processes=1)
    monkeypatch.setattr(schedule, "pays_off", lambda elapsed, done, remaining: True)
    monkeypatch.setattr(schedule, "usable_cores", lambda: 2)
    pids = []
    monkeypatch.setattr(schedule.Workers, "__exit__", _recording(schedule.Workers.__exit__, pids))
    assert evaluate_folder(*folders.paths, processes=2).rows == alone.rows
    assert len({row["reference_voxels"] for row in alone.rows}) > 3  # no two cases are alike
    assert len(pids) == 2


def _recording(original, pids: list):
    def leave(self, *args):
        pids.extend(self._executor._processes)
        return original(self, *args)

    return leave


@pytest.mark.slow
def test_sixty_hippocampus_volumes_in_twenty_seconds(real_data, tmp_path):
    """Seconds of processor time, start-up included: the time it takes where the cores are not busy with other work."""
    source = real_data / "hippocampus" / "Dataset004_Hippocampus"
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    if os.getloadavg()[0] > 2 * usable_cores():
        pytest.skip("the machine is too busy with other work for its times to mean anything")
    (tmp_path / "predictions").mkdir()
    cases = sorted(source.glob("labelsTr/*.nii.gz"))[:60]
    for path in cases:
        image = SimpleITK.ReadImage(str(path))
        moved = SimpleITK.GetImageFromArray(np.roll(SimpleITK.GetArrayFromImage(image), 1, axis=2))
        moved.CopyInformation(image)
        SimpleITK.WriteImage(moved, str(tmp_path / "predictions" / path.name))
    (tmp_path / "cases.txt").write_text("\n".join(path.name.removesuffix(".nii.gz") for path in cases))
    script = (
        "import argparse, sys\nfrom nnunet_ssl.commands import evaluate\nparser = argparse.ArgumentParser()\n"
        "evaluate.add_arguments(parser)\nsys.exit(evaluate.run(parser.parse_args()))"
    )
    arguments = ["-ref", source / "labelsTr", "-pred", tmp_path / "predictions", "--cases", tmp_path / "cases.txt"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "predictions" / "evaluation.csv").read_text().splitlines()) == 1 + 60 * 2
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 20
