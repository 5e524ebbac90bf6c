"""The written script on a real SLURM, and the path through submitit, on SLURM and without it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark import cluster_scripts, slurm
from nnunet_ssl.evaluation.benchmark.cluster_scripts import Resources, write_script
from nnunet_ssl.evaluation.benchmark.jobs import Job
from tests.evaluation.benchmark.fakes import CONTROL, DRIVER, MEAN_TEACHER, TRAINING, WORDS, Place, run
from tests.evaluation.benchmark.slurm_cluster import cluster, missing_programs
from tests.evaluation.benchmark.test_jobs import JOB
from tests.waiting import until

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None, reason="the extra [slurm] is not installed"
)
# A job that writes down each start; the one called "long" waits to be ended at its first start, as a training would.
STAND_IN = """#!/bin/bash
job="$2" out="$4"
echo "$job restart=${SLURM_RESTART_COUNT:-0} raw=$nnUNet_raw" >> "$out/starts.txt"
ended() { echo "$job ended" >> "$out/starts.txt"; exit 143; }
trap ended TERM
if [ "$job" = long ] && [ "$(grep -c '^long restart' "$out/starts.txt")" = 1 ]; then
    for i in $(seq 600); do sleep 0.1; done
fi
echo "$job done" >> "$out/starts.txt"
"""
SMALL = Resources("00:05:00", memory=1, cpus=1, gpus=0, at_once=2)


@pytest.fixture(scope="module")
def real_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    absent = missing_programs()
    if absent:
        pytest.skip(f"no {', '.join(absent)} here; Debian: apt-get install slurm-wlm munge")
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


def stand_in(folder: Path) -> str:
    path = folder / "stand_in"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return str(path)


def starts_in(folder: Path) -> list[str]:
    file = folder / "starts.txt"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.slow
def test_the_script_on_slurm_with_a_job_at_its_time_limit(real_slurm: dict[str, str], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(cluster_scripts, "command_words", lambda command: [stand_in(tmp_path)])
    monkeypatch.setenv("nnUNet_raw", "/some where/raw")
    written = write_script("slurm", str(tmp_path), [JOB] * 3, SMALL)
    (tmp_path / "jobs.txt").write_text("first\nlong\nlast\n")
    assert f"Submit: sbatch {written.path}" in written.instructions

    clean = {k: v for k, v in real_slurm.items() if not k.startswith("nnUNet_")}
    words = ["sbatch", "--parsable", "--export=NONE", written.path]
    done = subprocess.run(words, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    array = done.stdout.strip()

    def starts() -> list[str]:
        return starts_in(tmp_path)

    until(lambda: {"first done", "last done"} <= set(starts()) and any(s.startswith("long") for s in starts()))
    # what SLURM sends when the time limit is near
    subprocess.run(["scancel", "--signal=USR1", "--batch", f"{array}_2"], env=clean, check=True)
    until(lambda: "long done" in starts(), 90)
    of_long = [line for line in starts() if line.startswith("long")]
    raw = "raw=/some where/raw"
    assert of_long == [f"long restart=0 {raw}", "long ended", f"long restart=1 {raw}", "long done"]
    assert sorted(line for line in starts() if not line.startswith("long")) == [
        *("first done", f"first restart=0 {raw}", "last done", f"last restart=0 {raw}")
    ]
    logs = "".join(path.read_text() for path in sorted((tmp_path / "cluster").glob("slurm_*.log")))
    assert f"log: {tmp_path}/jobs/first/log.txt\n" in logs and "time limit: long waits in the queue again" in logs


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Three jobs for submitit, the second of which is to be interrupted."""
    monkeypatch.setattr(slurm, "command_words", lambda command: [stand_in(tmp_path)])
    monkeypatch.setattr(Job, "id", property(lambda job: job.trainer))
    monkeypatch.setenv("nnUNet_raw", "/raw")
    return [replace(JOB, trainer=name) for name in ("first", "long", "last")]


def preempt(folder: Path) -> threading.Thread:
    """Send the process of submitit that runs the job "long" the signal that announces its end."""

    def later() -> None:
        until(lambda: any(line.startswith("long restart") for line in starts_in(folder)))
        command = [str(folder / "stand_in"), "--job", "long"]
        found = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [])[1:4] == command]
        # the stand-in or a shell that it has forked; above them the guard, and above that submitit's process
        above = {q for p in found for q in p.parents() if "submitit.core._submit" in q.cmdline()}
        task = next(q for q in above if not above & set(q.children()))
        task.send_signal(signal.SIGUSR2)

    thread = threading.Thread(target=later)
    thread.start()
    return thread


def check_starts(folder: Path) -> None:
    lines = [line.replace("restart=1", "restart=0") for line in starts_in(folder)]  # counted by SLURM only
    begun = "restart=0 raw=/raw"
    assert [line for line in lines if line.startswith("long")] == [
        *(f"long {begun}", "long ended", f"long {begun}", "long done")
    ]
    assert sorted(line for line in lines if not line.startswith("long")) == [
        *("first done", f"first {begun}", "last done", f"last {begun}")
    ]


@needs_submitit
def test_submitits_local_executor_with_a_job_that_is_preempted(tmp_path: Path, jobs, capsys):
    thread = preempt(tmp_path)
    assert slurm.run_submitted(str(tmp_path), jobs, SMALL, slurm.LOCAL, wait=True)
    thread.join()
    check_starts(tmp_path)
    assert capsys.readouterr().out.count("submitted as ") == 3


@needs_submitit
@pytest.mark.slow
def test_submitit_on_slurm_with_a_job_that_is_preempted(
    real_slurm: dict[str, str], tmp_path: Path, jobs, monkeypatch, capsys
):
    for name in ("PATH", "SLURM_CONF"):
        monkeypatch.setenv(name, real_slurm[name])
    monkeypatch.setattr(slurm, "PERIOD", 0.3)
    with pytest.raises(SemiSupervisedError, match="sbatch refused the jobs: .*partition"):
        slurm.run_submitted(str(tmp_path), jobs, replace(SMALL, partition="none"), slurm.SLURM, wait=True)
    resources = replace(SMALL, directives=("--comment=mine",))
    thread = preempt(tmp_path)
    assert slurm.run_submitted(str(tmp_path), jobs, resources, slurm.SLURM, wait=True)
    thread.join()
    check_starts(tmp_path)
    (script,) = (tmp_path / "cluster").rglob("*_submission.sh")
    options = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if "#SBATCH" in line]
    assert {"array=0-2%2", "comment=mine", "cpus-per-task=1", "mem=1GB", "time=5", "requeue"} <= set(options)


@needs_submitit
@pytest.mark.slow
def test_submitit_runs_the_real_entry_to_the_table(place: Place, monkeypatch, capsys):
    """One of the two jobs is run here, since each start of the real entry takes seconds."""
    run(*WORDS, *TRAINING, "-o", str(place.out), "--write", "sh")
    run("--job", place.job(CONTROL), "-o", str(place.out))
    monkeypatch.setattr(slurm, "command_words", lambda command: [sys.executable, "-c", DRIVER, str(place.bin)])
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    capsys.readouterr()
    assert run("-o", str(place.out), "--run", "submitit-local") == 0
    output = capsys.readouterr().out
    assert "2 jobs, 1 of them already complete" in output and "2 jobs: 2 complete." in output
    assert output.count("submitted as ") == 1 and f": {place.job(MEAN_TEACHER)}\n" in output
    assert [stage["name"] for stage in place.record(MEAN_TEACHER)["stages"]] == ["train", "evaluate"]


def test_directives_for_submitit():
    assert slurm._additional(("--account=a=b", "--exclusive")) == {"requeue": True, "account": "a=b", "exclusive": True}


@needs_submitit
def test_without_slurm_the_error_says_so(place: Place, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SemiSupervisedError, match="cannot be submitted"):
        run(*WORDS, "-o", str(place.out), "--run", "slurm")


def test_without_submitit_the_error_names_the_extra(place: Place, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(SemiSupervisedError, match="Run: pip install submitit"):
        run(*WORDS, "-o", str(place.out), "--run", "slurm")
