"""The process that evaluates for all jobs."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.command import Interrupted
from nnunet_ssl.evaluation.benchmark.evaluator import Evaluator
from nnunet_ssl.evaluation.benchmark.scores import ToEvaluate, evaluation_of_validation
from tests.evaluation.benchmark.fakes import run
from tests.waiting import until


@dataclass(frozen=True)
class Quick(ToEvaluate):
    """Does what its reference says."""

    def run(self, processes: int) -> None:
        Path(self.output).write_text(f"{os.getpid()} {processes}")
        os.system("echo printed by a library")
        if self.reference == "fail":
            raise SemiSupervisedError("nothing fits")
        if self.reference == "wait":
            time.sleep(600)


def test_one_process_for_all_which_ends_with_us(tmp_path: Path, capfd):
    log, answer, stop = str(tmp_path / "log.txt"), tmp_path / "answer", threading.Event()
    with Evaluator(3) as evaluator:
        evaluator.evaluate(Quick("fine", "", str(answer), ""), log, stop)
        first = answer.read_text()
        with pytest.raises(SemiSupervisedError, match="nothing fits"):
            evaluator.evaluate(Quick("fail", "", str(answer), ""), log, stop)
        assert answer.read_text() == first and first.endswith(" 3")
        answer.unlink()
        threading.Thread(target=lambda: (until(answer.exists), stop.set())).start()
        with pytest.raises(Interrupted):
            evaluator.evaluate(Quick("wait", "", str(answer), ""), log, stop)
    pid = int(first.split()[0])
    assert pid != os.getpid()
    until(lambda: not Path(f"/proc/{pid}").exists(), 10)
    assert (tmp_path / "log.txt").read_text() == "printed by a library\n" * 3
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_the_real_evaluation_of_a_fold(place, monkeypatch):
    """What evaluate_folder is asked for fits it: the fold's cases, and the files that the table is made of."""
    from nnunet_ssl.evaluation.benchmark import jobs
    from tests.evaluation.benchmark.fakes import MEAN_TEACHER, TRAINING, WORDS

    assert run(*WORDS, *TRAINING, "-o", str(place.out)) == 0
    (job,) = [job for job in jobs.read_benchmark(str(place.out))[1] if job.trainer == MEAN_TEACHER]
    task = evaluation_of_validation(job, str(place.root / "evaluated"))
    task.run(1)
    lines = (place.root / "evaluated" / "evaluation.csv").read_text().splitlines()
    assert lines[0].startswith("case,class,label,status,dice")
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [case, name] for case in ("tiny_000", "tiny_001") for name in ("ball", "box")
    ]
    assert (place.root / "evaluated" / "evaluation.json").is_file()
