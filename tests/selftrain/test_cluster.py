"""The steps on a cluster: arrays that wait for each other, and the same steps one by one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nnunet_ssl.evaluation.benchmark import cluster_scripts
from nnunet_ssl.selftrain.cluster import chain, levels
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.start import run_single
from tests.selftrain.fakes import WORDS, Place, run

ONE = (*WORDS, "--rounds", "1", "--select", "none")
ASKED = ("--time", "2:00:00", "--memory", "16", "--cpus", "4", "--partition", "gpu")
LEVELS = [
    ["round0__train__0", "round0__train__1"],
    ["round1__predict__0", "round1__predict__1"],
    ["round1__select"],
    ["round1__dataset"],
    ["round1__preprocess"],
    ["round1__train__0", "round1__control"],
]


def test_steps_that_need_nothing_from_each_other_are_one_array(place: Place, capsys):
    assert run(place, *ONE, "--write", "slurm", *ASKED) == 0
    steps = [*Keys(place.settled()).steps.values()]
    assert [[step.id for step in level] for level in levels(steps)] == LEVELS
    for number, level in enumerate(LEVELS, 1):
        assert (place.out / f"jobs_{number:02d}.txt").read_text().split() == level
        text = (place.out / f"submit_{number:02d}.slurm").read_text()
        assert f"#SBATCH --array=1-{len(level)}\n" in text and "#SBATCH --time=2:00:00" in text
        assert f"{sys.executable} -m nnunet_ssl.cli selftrain --job" in text and f"jobs_{number:02d}.txt" in text
    output = capsys.readouterr().out
    assert f"Submit: bash {place.out}/submit_all_slurm.sh" in output
    assert f"When the tasks are done: nnunet_ssl selftrain -o {place.out}" in output


@pytest.mark.parametrize(
    ("kind", "program", "answer", "expected"),
    [
        ("slurm", "sbatch", "echo $N", ["--parsable a.s", "--parsable --dependency=afterok:1 b.s"]),
        ("pbs", "qsub", "echo $N", ["a.s", "-W depend=afterok:1 b.s"]),
        ("lsf", "bsub", 'echo "Job <$N> is submitted to queue <long 7>."', ["", "-w done(1)"]),
    ],
)
def test_each_array_waits_for_the_one_before(tmp_path, kind: str, program: str, answer: str, expected: list[str]):
    """With a stand-in for the scheduler that notes its arguments and answers with a number."""
    stand_in = tmp_path / program
    stand_in.write_text(
        f'#!/bin/bash\necho "$*" >> {tmp_path}/asked\nN=$(wc -l < {tmp_path}/asked)\ncat > /dev/null\n{answer}\n'
    )
    stand_in.chmod(0o755)
    for name in ("a.s", "b.s"):
        (tmp_path / name).write_text("script")
    script = chain(kind, ["a.s", "b.s"])
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "asked").read_text().splitlines() == expected
    assert done.stdout == "a.s: 1\nb.s: 2\n"


def test_one_step_after_the_other_as_tasks_do(place: Place, capsys):
    assert run(place, *ONE, "--write", "sh") == 0
    steps = [line for level in LEVELS for line in level]
    assert sorted((place.out / "jobs.txt").read_text().split()) == sorted(steps)
    assert run_single(str(place.out), "round1__select") == 1
    assert "needs the result of round1__predict__0, round1__predict__1" in capsys.readouterr().err
    for step in (place.out / "jobs.txt").read_text().split():  # in an order in which they can be done
        assert run_single(str(place.out), step) == 0
    calls = len(place.calls())
    assert run(place, *ONE, "--write", "pbs") == 0 and "All 9 steps are complete" in capsys.readouterr().out
    assert run(place, "-o", str(place.out)) == 0 and len(place.calls()) == calls


def test_the_shell_script_runs_in_order(place: Place, monkeypatch, tmp_path, capsys):
    stand_in = tmp_path / "run"
    stand_in.write_text('#!/bin/sh\ncat > /dev/null\necho "ran $2"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(cluster_scripts, "command_words", lambda command: [str(stand_in)])
    assert run(place, *ONE, "--write", "sh") == 0
    done = subprocess.run(["bash", str(place.out / "submit.sh")], capture_output=True, text=True)
    ran = [line.removeprefix("ran ") for line in done.stdout.splitlines() if line.startswith("ran")]
    after = {step.id: step.after for step in Keys(place.settled()).steps.values()}
    assert len(ran) == 9 and all(set(after[step]) <= set(ran[:i]) for i, step in enumerate(ran))


def test_submitit_takes_the_steps_as_they_become_ready(place: Place, monkeypatch, capsys):
    """A stand-in for submitit's executor runs each step at once, in this process."""
    from nnunet_ssl.evaluation.benchmark import slurm

    batches: list[list[str]] = []

    class Task:
        def done(self) -> bool:
            return True

    def submit(executor, output, job_ids, command):
        assert command == "selftrain"
        batches.append(list(job_ids))
        assert all(run_single(output, job_id) == 0 for job_id in job_ids)
        return {job_id: Task() for job_id in job_ids}

    monkeypatch.setattr(slurm, "make_executor", lambda *arguments: None)
    monkeypatch.setattr(slurm, "_submit", submit)
    monkeypatch.setattr(slurm, "PERIOD", 0.0)
    assert run(place, *ONE, "--run", "slurm") == 0
    first, *others, last = LEVELS  # the control need not wait for anything
    assert [batch for batch in batches if batch] == [[*first, "round1__control"], *others, last[:1]]
