"""Commands of the Makefile that are too large for every day: what they call, and that the documentation names them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*words: str, folder: Path = ROOT, **variables: str) -> str:
    command = ["make", *words, *(f"{name}={value}" for name, value in variables.items())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_target_that_a_page_names_is_there(page: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:^ +|`)make ([\w-]+)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE))
    assert named and named <= targets


def script(file: Path, lines: str) -> None:
    file.write_text(f"#!/bin/sh\nset -e\n{lines}\n")
    file.chmod(0o755)


def test_trixie_gets_a_copy_and_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the two commands that need root."""
    programs, source, trixie, log = (tmp_path / name for name in ("bin", "source", "trixie", "log"))
    programs.mkdir()
    script(
        programs / "debootstrap", f'echo debootstrap "$@" >> {log}\nmkdir -p "$3/usr/bin"\ncp /bin/sh "$3/usr/bin/make"'
    )
    script(programs / "chroot", f'echo chroot "$@" >> {log}')
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    for folder in (".venv", ".venv-minimum", "build", ".git", "nnunet_ssl"):
        (source / folder).mkdir(parents=True)
        (source / folder / "file").touch()
    (source / "trainers").symlink_to("nnunet_ssl")
    shutil.copy(ROOT / "Makefile", source)
    copy = trixie / "root" / "nnunet_ssl"

    make("test-trixie", folder=source, TRIXIE=str(trixie))
    (copy / ".venv").mkdir()  # as `make test` there leaves it
    (copy / "gone").touch()
    make("test-trixie", folder=source, TRIXIE=str(trixie))
    assert sorted(path.name for path in copy.iterdir()) == [".git", ".venv", "Makefile", "nnunet_ssl", "trainers"]
    assert (copy / "trainers").is_symlink() and (copy / "nnunet_ssl" / "file").is_file()
    assert not list((copy / ".venv").iterdir())
    test = f"chroot {trixie} make -C /root/nnunet_ssl test"
    made = f"debootstrap --include=python3-venv,make,git,ca-certificates trixie {trixie}"
    assert log.read_text().splitlines() == [made, test, test]


def test_the_lowest_versions_are_those_of_the_wheel_in_an_empty_environment() -> None:
    """Its dependencies come with it, and its command runs where the sources are not."""
    lines = make("--dry-run", "test-minimum").replace("\\\n", "").splitlines()
    empty, build, lowest, install, methods, pytest_, tests = (
        next(number for number, line in enumerate(lines) if re.search(pattern, line))
        for pattern in (
            r"-m venv --clear \.venv-minimum$",
            r"uv build .*--out-dir build/minimum$",
            r"pip compile .*--resolution lowest-direct pyproject.toml .*--output-file build/minimum/lowest.txt$",
            r"pip install .*--constraints build/minimum/lowest.txt build/minimum/\*.whl$",
            r"^cd \.venv-minimum && bin/nnunet_ssl methods$",
            r"pip install .*pytest",
            r"-m pytest tests/test_cli.py",
        )
    )
    assert empty < build < lowest < install < methods < pytest_ < tests
    assert not any("--no-deps" in line or " -e " in line for line in lines)
