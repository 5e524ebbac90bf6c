"""`nnunet_ssl doctor` as it is typed, and each thing it can find wrong."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor import examination, installation, lookup, preflight
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding, Section, is_wrong, render
from nnunet_ssl.errors import INSTALL
from nnunet_ssl.trainers import TRAINERS
from tests.waiting import gone, until

ROOT = Path(__file__).resolve().parents[2]


# ---- the whole command


def test_everything_right(split_dataset, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, external_directory())
    with only_one_child(monkeypatch):
        assert main(["doctor", "-d", "901"]) == 0
    output = capsys.readouterr()
    assert output.err == f"PyTorch and nnU-Net are imported, {len(TRAINERS)} trainers looked up, then dataset 901 ...\n"
    lines = [" ".join(line.split()) for line in output.out.splitlines()]
    assert lines[0] == "Semi-supervised training for nnU-Net: examination"
    assert lines[-1] == "Nothing is wrong."
    for name, module in TRAINERS.items():
        assert f"ok {name} found, {module}" in lines
    assert f"ok nnUNet_raw {os.environ['nnUNet_raw']}" in lines
    for configuration in ("2d", "3d_fullres"):
        assert f"ok {configuration} labelled 6 cases" in lines
        assert f"ok {configuration} unlabelled 3 of 3 images" in lines
    assert "note 3d_lowres labelled not preprocessed" in lines
    assert "-> nnUNetv2_preprocess -d 901 -c 3d_lowres -plans_name nnUNetPlans" in lines
    assert "ok splits_ssl.json 1 splits, hash intact" in lines
    validation = "validation 2 1 1 1 1"
    assert f"ok split n2 per fold: labelled 2 2 2 2 2; withheld 2 3 3 3 3; {validation}" in lines
    assert "ok nnUNetPlans_n2 split n2" in lines
    assert "training: num_epochs = 3" in lines
    assert not any(line.startswith("Searching") for line in lines)  # nnU-Net's own prints


@contextmanager
def only_one_child(monkeypatch) -> Iterator[None]:
    """One process, and nothing is examined in this one, where PyTorch would have to be imported a second time."""
    started = []
    run = subprocess.run
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *args, **kwargs: started.append(args) or run(*args, **kwargs))
        patch.setattr(examination, "preflight_findings", lambda: pytest.fail("examined here, not in the child"))
        yield
    assert len(started) == 1


def test_the_exit_code_is_1_if_anything_is_wrong(monkeypatch, capsys):
    for mark, code in ((OK, 0), (NOTE, 0), (WRONG, 1)):
        section = Section("S", [Finding(mark, "i", "t")])
        monkeypatch.setattr(examination, "examine_in_child", lambda *_, section=section: [section])
        assert main(["doctor"]) == code
        assert f"  {mark:<5} i t" in capsys.readouterr().out.splitlines()


# ---- what stops nnU-Net from being imported, in a process that has not imported it


def doctor_in_fresh_process(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_ssl.cli", "doctor", "-d", "901"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_the_process_that_looks_up_ends_with_the_doctor(tmp_path, monkeypatch):
    (tmp_path / "endless.py").write_text(f"import time; open({str(tmp_path / 'begun')!r}, 'w'); time.sleep(600)")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    doctor = multiprocessing.get_context("fork").Process(target=lookup.ask, args=(["nnUNetTrainerSupervised"],))
    doctor.start()
    try:
        until(lambda: (tmp_path / "begun").exists() or not doctor.is_alive())
        children = psutil.Process(doctor.pid).children(recursive=True)
    finally:
        doctor.kill()
        doctor.join()
    assert len(children) == 1
    until(lambda: gone(children), 10)


def test_variables_that_stop_nnunet():
    lines = doctor_in_fresh_process(nnUNet_n_proc_DA="eight", nnUNet_def_n_proc="")
    assert "WRONG preprocessing processes nnUNet_def_n_proc= is not a whole number" in lines
    assert "WRONG loading workers nnUNet_n_proc_DA=eight is not a whole number" in lines
    assert "-> export nnUNet_n_proc_DA=8, or unset nnUNet_n_proc_DA" in lines


@pytest.mark.parametrize(
    ("module", "name", "statement", "text"),
    [
        ("nnunetv2", "nnU-Net", "raise ImportError('no such symbol')", "ImportError: no such symbol"),
        ("torch", "PyTorch", "import os; os.nope", "AttributeError: module 'os' has no attribute 'nope'"),
    ],
)
def test_packages_that_cannot_be_imported(tmp_path, module, name, statement, text):
    (tmp_path / "broken" / module).mkdir(parents=True)
    (tmp_path / "broken" / module / "__init__.py").write_text(statement)
    if module != "torch":  # not under test, and slow
        (tmp_path / "broken" / "torch.py").touch()
    path = os.pathsep.join([str(tmp_path / "broken"), *sys.path])
    lines = doctor_in_fresh_process(PYTHONPATH=path, nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1")
    assert f"WRONG {name} cannot be imported: {text}" in lines
    assert f"-> repair the installation: {' '.join(INSTALL.split())}" in lines
    assert "Environment" in lines


# ---- report


def test_aligned_with_remedies_below_their_problem():
    findings = [Finding(OK, "a", "fine"), Finding(WRONG, "longer", "first\nsecond", "do this\nthen that")]
    assert render([Section("One", findings), Section("Two", [Finding(NOTE, "b", "c")])]).splitlines() == [
        "One",
        "  ok    a      fine",
        "  WRONG longer first",
        "               second",
        "               -> do this",
        "               -> then that",
        "",
        "Two",
        "  note  b      c",
        "",
        "1 WRONG, see -> for what to do.",
    ]
    assert is_wrong([Section("One", findings)])
    assert not is_wrong([Section("One", findings[:1])])


# ---- installation and environment


def test_versions_that_do_not_fit(monkeypatch):
    needed = ["nnunetv2>=99", "numpy", "no-such-package>=1", 'ruff>=99; extra == "dev"']
    monkeypatch.setattr(preflight.metadata, "requires", lambda name: needed)
    finding = installation.installation_findings()[-1]
    assert (finding.mark, finding.item) == (WRONG, "requirements")
    first, second = finding.text.splitlines()
    assert first.startswith("nnunetv2 2.") and first.endswith("is installed, but nnunetv2>=99 is needed")
    assert second == "no-such-package>=1 is not installed"
    assert finding.remedy == INSTALL


@pytest.mark.parametrize(
    ("value", "device", "text"),
    [
        (None, "cuda", "on (not set)"),
        ("T", "cuda", "on (nnUNet_compile=T)"),
        ("f", "cuda", "off (nnUNet_compile=f)"),
        ("1", "mps", "off on this device (nnUNet_compile=1)"),
    ],
)
def test_compilation_follows_nnunets_rule(monkeypatch, value, device, text):
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_compile", value)
    assert installation._compilation(device).text == text


def test_device_mixed_precision_and_workers(monkeypatch):
    monkeypatch.setattr(installation, "best_device", lambda: "cpu")
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    device, precision, _, workers = installation.device_findings()
    assert (device.mark, device.remedy) == (NOTE, "nnUNetv2_train ... -device cpu")
    assert precision.text.startswith("off")
    assert workers.text.startswith("0 (nnUNet_n_proc_DA)")
    monkeypatch.setenv("nnUNet_n_proc_DA", "many")
    assert installation.device_findings()[-1].mark == WRONG


def test_variables(tmp_path, monkeypatch):
    here = str(tmp_path)
    fine = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), here)
    good = {**fine, VARIABLE: os.pathsep.join([here, external_directory()])}
    assert [f.mark for f in environment_findings(good)] == [OK] * 4

    findings = environment_findings({"nnUNet_raw": f"{here}/no", "nnUNet_results": ""})
    assert [f.mark for f in findings] == [WRONG] * 4
    assert [f.remedy.split("=")[0] for f in findings[1:]] == [
        "export nnUNet_preprocessed",
        "export nnUNet_results",
        "export nnUNet_extTrainer",
    ]
    assert findings[0].remedy.startswith(f"mkdir -p '{here}/no'")

    value = os.pathsep.join([f"{here}/no", here])
    *_, ours, absent = environment_findings({**fine, VARIABLE: value})
    assert (ours.mark, ours.remedy) == (NOTE, "export nnUNet_extTrainer=$(nnunet_ssl path)")
    assert (absent.mark, absent.text) == (NOTE, f"nnU-Net skips entries that are no folders: {here}/no")

    monkeypatch.setattr("os.access", lambda *_: False)
    assert [f.mark for f in environment_findings(good)] == [NOTE, NOTE, WRONG, OK]


# ---- look-up: each wrong value of the variable in a process of its own, as nnU-Net meets it


@pytest.mark.parametrize(
    ("value", "text", "remedy"),
    [
        (None, "not found: Could not find requested nnunet trainer", "export nnUNet_extTrainer=$(nnunet_ssl path)"),
        ("copy", "nnU-Net finds another class of this name, from trainers.", "unset nnUNet_extTrainer"),
        ("broken", "not found: ModuleNotFoundError: No module named 'no_such_dependency'", "stops nnU-Net's search"),
        ("kills", "nnU-Net's search for trainers ended early: exit code 7, last words", "look at the directories"),
    ],
)
def test_trainers_that_nnunet_does_not_find(tmp_path, monkeypatch, value, text, remedy):
    modules = {
        "broken": "import no_such_dependency",
        "kills": "import os; print('last words', flush=True); os._exit(7)",
    }
    folder = tmp_path / "directory"
    if value == "copy":  # the layout that breaks pickling: classes of a package that is searched, not imported
        shutil.copytree(ROOT / "nnunet_ssl" / "trainers", folder / "trainers")
    elif value is not None:
        folder.mkdir()
        (folder / "a_module.py").write_text(modules[value])
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder), external_directory()]))
    (findings,) = (s.findings for s in examination.examine_in_child(None, "", None) if s.title.startswith("Trainers"))
    assert len(findings) == (1 if value == "kills" else len(TRAINERS))
    if value == "copy":  # where the search meets a copy first that imports our class, nnU-Net finds the right one
        findings = [finding for finding in findings if finding.mark == WRONG]
        assert len(findings) > len(TRAINERS) / 2
    for finding in findings:
        assert finding.mark == WRONG
        assert finding.text.startswith(text)
        assert remedy in finding.remedy


def test_no_package_where_nnunet_runs():
    error = "ModuleNotFoundError: X belongs to the package nnunet_ssl, which is not installed in this environment. ..."
    assert lookup._finding("X", {"error": error}).remedy == INSTALL
