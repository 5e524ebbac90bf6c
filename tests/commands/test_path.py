"""`nnunet_ssl path`: the value alone on stdout, and on stderr the entries that break nnU-Net's look-ups."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.report import NOTE

ROOT = Path(__file__).resolve().parents[2]
TRAINER = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\nclass Other(nnUNetTrainer): pass\n"


def entry(kind: str, folder: Path) -> str:
    """A folder of that kind as an entry of the variable."""
    folder.mkdir()
    if kind == "site-packages":
        return sysconfig.get_path("purelib")
    if kind == "our clone":
        return str(ROOT)
    if kind == "our package":
        return str(ROOT / "nnunet_ssl")
    if kind == "copied trainers":
        shutil.copytree(ROOT / "nnunet_ssl" / "trainers", folder / "copy")
    elif kind == "setup.py":
        (folder / "setup.py").touch()
    else:  # the layout of nnU-Net's documentation, and a single module
        (folder / "other.py").write_text(TRAINER)
        if kind == "a package of others":
            (folder / "others").mkdir()
            (folder / "others" / "__init__.py").touch()
            (folder / "others" / "more.py").write_text(TRAINER)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("our package", "is a package"),
        ("our clone", "holds packages that Python finds anyway ("),
        ("site-packages", "holds packages that Python finds anyway ("),
        ("copied trainers", "holds a copy of nnUNetTrainerADMT, "),
        ("setup.py", "holds setup.py"),
        ("a module", ""),
        ("a package of others", ""),
    ],
)
def test_entries_that_break_look_ups(tmp_path, monkeypatch, capsys, kind, text):
    path = entry(kind, tmp_path / "entry")
    monkeypatch.setenv(VARIABLE, path)
    if kind == "our clone":
        monkeypatch.syspath_prepend(str(ROOT))  # as an editable installation does
    assert main(["path"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{path}{os.pathsep}{external_directory()}\n"
    if not text:
        assert output.err == ""
    else:
        problem, remedy = output.err.splitlines()
        assert problem.startswith(f"nnunet_ssl path: {path}: {text}")
        assert remedy.startswith(f"-> take it out of {VARIABLE}, or")
    said = [f.text for f in environment_findings({VARIABLE: path}) if f.mark == NOTE and f.text.startswith(f"{path}: ")]
    assert (len(said) == 1 and said[0].startswith(f"{path}: {text}")) if text else not said  # doctor says the same


def test_entries_that_are_no_folders(tmp_path, monkeypatch, capsys):
    (tmp_path / "file.py").touch()
    value = os.pathsep.join([f"{tmp_path}/file.py", f"{tmp_path}/no", external_directory()])
    monkeypatch.setenv(VARIABLE, value)
    assert main(["path"]) == 0
    output = capsys.readouterr()
    assert output.out == f"{value}\n"
    skipped = f"nnunet_ssl path: nnU-Net skips entries that are no folders: {tmp_path}/file.py, {tmp_path}/no\n"
    assert output.err == f"{skipped}-> correct {VARIABLE} if they matter\n"


def test_nothing_to_say(monkeypatch, capsys):
    for value in (None, external_directory()):
        monkeypatch.delenv(VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(VARIABLE, value)
        assert main(["path"]) == 0
        assert capsys.readouterr() == (f"{external_directory()}\n", "")
