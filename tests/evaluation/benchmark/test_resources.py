"""Environment of the jobs, GPU memory, and with what a result was made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_ssl
from nnunet_ssl.evaluation.benchmark import provenance, resources
from nnunet_ssl.evaluation.benchmark.resources import Peak, job_variables, visible_gpus


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resources, "usable_cores", lambda: 16)


def test_jobs_on_the_cpu_share_the_cores(sixteen_cores):
    variables = job_variables({}, "cpu", None, 4)
    assert variables["OMP_NUM_THREADS"] == "4" and variables["OMP_WAIT_POLICY"] == "PASSIVE"
    assert variables["nnUNet_n_proc_DA"] == "1" and variables["nnUNet_def_n_proc"] == "4"
    assert "OMP_NUM_THREADS" not in job_variables({}, "cpu", None, 1)


def test_jobs_on_gpus_share_the_loading_processes(sixteen_cores):
    variables = job_variables({}, "cuda", "1", 2)
    assert variables["CUDA_VISIBLE_DEVICES"] == "1" and variables["nnUNet_n_proc_DA"] == "8"
    assert "OMP_NUM_THREADS" not in variables
    assert job_variables({}, "cuda", None, 1)["nnUNet_n_proc_DA"] == "12"


def test_what_the_user_has_set_stays(sixteen_cores):
    variables = job_variables({"nnUNet_n_proc_DA": "3", "OMP_NUM_THREADS": "2"}, "cpu", None, 4)
    assert "nnUNet_n_proc_DA" not in variables and "OMP_NUM_THREADS" not in variables


@pytest.mark.parametrize(("value", "gpus"), [("0,2", ["0", "2"]), ("", []), ("-1", []), ("GPU-ab12", ["GPU-ab12"])])
def test_the_gpus_that_may_be_used(value: str, gpus: list[str]):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": value}) == gpus


def test_gpu_memory_of_the_own_processes_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '{child.pid}, 700'\necho '{child.pid}, 50'\necho '1, 9000'\necho '2, [N/A]'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    peak, unknown = Peak(gpu=True), Peak(gpu=False)
    try:
        for each in (peak, unknown):
            each.sample(os.getpid())
    finally:
        child.communicate()
    assert peak.gpu_memory_mb == 750 and unknown.gpu_memory_mb is None
    assert peak.memory_mb is not None and peak.memory_mb > 1


def test_versions():
    found = provenance.versions()
    assert found["nnunet_ssl"] == nnunet_ssl.__version__ and found["nnunetv2"].startswith("2.")


def test_the_revision_of_a_clone_and_none_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    package = tmp_path / "nnunet_ssl"
    package.mkdir()
    (package / "__init__.py").touch()
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(nnunet_ssl, "__file__", str(package / "__init__.py"))
    revision = provenance.git_revision.__wrapped__
    assert revision() == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("changed = True\n")
    assert revision() == git("rev-parse", "HEAD") + "+changes"
    installed = tmp_path / "venv" / "nnunet_ssl"
    installed.mkdir(parents=True)
    monkeypatch.setattr(nnunet_ssl, "__file__", str(installed / "__init__.py"))
    assert revision() is None


def test_the_name_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\n[ "$4" = 3 ] && echo "NVIDIA X" || exit 9\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert provenance.device_name("cuda", "3") == "cuda: NVIDIA X"
    assert provenance.device_name("cuda", "4") == "cuda"
    assert provenance.device_name("cpu", None) == "cpu"
