"""Scripts for clusters: what they ask for, and that they run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark import cluster_scripts
from nnunet_ssl.evaluation.benchmark.cluster_scripts import KINDS, Resources, write_script
from tests.evaluation.benchmark.fakes import CONTROL, MEAN_TEACHER, TRAINING, WORDS, Place, run
from tests.evaluation.benchmark.test_jobs import JOB

ALL = Resources("20:30:00", 48, 6, 1, "gpu", ("--account=abc",), at_once=4)


def lines(kind: str, folder: Path, resources: Resources = ALL, jobs: int = 3) -> list[str]:
    written = write_script(kind, str(folder), [JOB] * jobs, resources)
    assert written.path == str(folder / f"submit.{kind}") and os.access(written.path, os.X_OK)
    assert subprocess.run(["bash", "-n", written.path]).returncode == 0
    return Path(written.path).read_text().splitlines()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "slurm",
            "#SBATCH --array=1-3%4|#SBATCH --time=20:30:00|#SBATCH --cpus-per-task=6|#SBATCH --mem=48G|"
            "#SBATCH --gres=gpu:1|#SBATCH --partition=gpu|#SBATCH --requeue|#SBATCH --signal=B:USR1@300|"
            "#SBATCH --account=abc",
        ),
        (
            "pbs",
            "#PBS -J 1-3%4|#PBS -l select=1:ncpus=6:mem=48gb:ngpus=1|#PBS -l walltime=20:30:00|#PBS -q gpu|#PBS -r y|"
            "#PBS --account=abc",
        ),
        (
            "lsf",
            '#BSUB -J "nnunet_ssl[1-3]%4"|#BSUB -n 6|#BSUB -R "rusage[mem=48GB]"|#BSUB -W 20:30|#BSUB -q gpu|'
            '#BSUB -gpu "num=1:j_exclusive=yes"|#BSUB --account=abc',
        ),
    ],
)
def test_what_a_task_asks_for(tmp_path: Path, kind: str, expected: str):
    text = lines(kind, tmp_path)
    assert text[0] == "#!/bin/bash"
    header = [line for line in text[1:] if line.startswith(f"{expected.split()[0]} ")]
    assert set(expected.split("|")) <= set(header)
    assert text[1 : 1 + len(header)] == header  # schedulers stop reading at the first command
    assert not any("gpu" in line.lower() for line in lines(kind, tmp_path, Resources(gpus=0)) if line[0:2] == "#S")


@pytest.mark.parametrize("kind", KINDS)
def test_the_environment_of_now_is_written_in(tmp_path: Path, monkeypatch, kind: str):
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, f"/data of mine/{name}")
    monkeypatch.setenv("nnUNet_n_proc_DA", "5")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    text = "\n".join(lines(kind, tmp_path))
    assert "export nnUNet_raw='/data of mine/nnUNet_raw'\n" in text and "export nnUNet_n_proc_DA=5\n" in text
    assert "/external" in next(line for line in text.splitlines() if line.startswith("export nnUNet_extTrainer="))
    assert "secret" not in text
    assert f"{sys.executable} -m nnunet_ssl.cli benchmark --job" in text
    assert (tmp_path / "jobs.txt").read_text() == f"{JOB.id}\n" * 3


def test_an_array_of_one_in_pbs_has_a_second_empty_task(tmp_path: Path):
    text = lines("pbs", tmp_path, jobs=1)
    assert "#PBS -J 1-2%4" in text
    environment = {**os.environ, "PBS_ARRAY_INDEX": "2"}
    done = subprocess.run(["bash", str(tmp_path / "submit.pbs")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "no job in line 2" in done.stdout


@pytest.mark.parametrize("time", ["12", "1:00", "0:00:00", "a:00:00", "1-00:00:00"])
def test_other_forms_of_time_are_refused(time: str):
    with pytest.raises(SemiSupervisedError, match="hours:minutes:seconds"):
        _ = Resources(time).minutes


def test_minutes_are_rounded_up():
    assert [Resources(t).minutes for t in ("00:01:00", "2:00:01", "48:30:00")] == [1, 121, 2910]


def test_instructions_are_printed_and_complete_jobs_left_out(place: Place, capsys):
    words = (*WORDS, *TRAINING, "-o", str(place.out))
    place.order(CONTROL, "fail")
    assert run(*words) == 1
    capsys.readouterr()
    assert run(*words, "--write", "slurm", "--time", "00:30:00", "--memory", "4", "--cpus", "1") == 0
    assert (place.out / "jobs.txt").read_text() == f"{place.job(CONTROL)}\n"
    assert capsys.readouterr().out.splitlines() == [
        f"{place.out}/submit.slurm: 1 of 2 jobs",
        f"Submit: sbatch {place.out}/submit.slurm",
        "Watch: squeue --me; a task at its time limit goes back to the queue by itself.",
        f"When the tasks are done: nnunet_ssl report {place.out}",
    ]
    assert "gpu" not in (place.out / "submit.slurm").read_text().split("\n\n")[0]
    place.order(CONTROL, None)
    run("-o", str(place.out))
    capsys.readouterr()
    assert run(*words, "--write", "slurm") == 0
    assert capsys.readouterr().out.startswith("All 2 jobs")


def test_the_shell_script_runs_every_job_and_counts_failures(tmp_path: Path, monkeypatch):
    """With a stand-in for the command; the command itself runs in the other tests."""
    stand_in = tmp_path / "run"
    stand_in.write_text('#!/bin/sh\ncat > /dev/null\necho "ran $2 in $4"\n[ "$2" != bad ]\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(cluster_scripts, "command_words", lambda command: [str(stand_in)])
    written = write_script("sh", str(tmp_path), [JOB] * 3, Resources())
    (tmp_path / "jobs.txt").write_text("one\nbad\nthree\n")
    done = subprocess.run(["bash", written.path], capture_output=True, text=True)
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("ran")] == [
        f"ran {name} in {tmp_path}" for name in ("one", "bad", "three")
    ]
    assert done.stdout.endswith("1 of 3 jobs failed\n") and f"log: {tmp_path}/jobs/one/log.txt" in done.stdout


@pytest.mark.parametrize(("kind", "index"), [("pbs", "PBS_ARRAY_INDEX"), ("lsf", "LSB_JOBINDEX")])
def test_a_time_limit_ends_the_job_properly(tmp_path: Path, monkeypatch, kind: str, index: str):
    stand_in = tmp_path / "run"
    stand_in.write_text('#!/bin/bash\ntrap "echo ended $2; exit 143" TERM\necho begun\nwhile :; do sleep 0.05; done\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(cluster_scripts, "command_words", lambda command: [str(stand_in)])
    written = write_script(kind, str(tmp_path), [JOB] * 2, Resources())
    environment = {**os.environ, index: "2"}
    process = subprocess.Popen(["bash", written.path], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "begun\n" in process.stdout
    process.terminate()
    assert process.communicate(timeout=10)[0] == f"ended {JOB.id}\n" and process.returncode == 143


def test_numbers_below_one_are_refused(place: Place):
    with pytest.raises(SemiSupervisedError) as caught:
        run(*WORDS, "-o", str(place.out), "--cpus", "0", "--memory", "-1", "--processes", "0", "--write", "pbs")
    assert all(f"{name}: at least 1" in str(caught.value) for name in ("--cpus 0", "--memory -1", "--processes 0"))


def test_the_trainers_of_the_test_are_those_of_the_table(place: Place):
    run(*WORDS, "-o", str(place.out), "--write", "sh")
    assert (place.out / "jobs.txt").read_text().split() == [place.job(CONTROL), place.job(MEAN_TEACHER)]
