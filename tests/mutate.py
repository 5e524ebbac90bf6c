"""Breaks the methods on purpose, one line at a time, and sees whether the tests notice.

    python -m tests.mutate                 all mutations of tests/mutations.md
    python -m tests.mutate skcdf ldc       those of these methods

Works in a copy of the package and the tests. A mutation is a text that stands once among the files whose path below
nnunet_ssl/ begins with what the table says; the test is found by its name, so that files may move.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = Path(__file__).with_name("mutations.md")


@dataclass(frozen=True)
class Mutation:
    method: str
    what: str
    where: str
    old: str
    new: str
    test: str


def mutations() -> list[Mutation]:
    found, method = [], ""
    for line in TABLES.read_text().splitlines():
        if line.startswith("## "):
            method = line[3:].strip()
        elif line.startswith("| ") and "`" in line:
            what, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            found.append(Mutation(method, what, *(cell.strip("`").strip() for cell in cells)))
    return found


def file_of(tree: Path, mutation: Mutation) -> Path:
    package = tree / "nnunet_ssl"
    candidates = [
        file
        for file in sorted(package.rglob("*.py"))
        if str(file.relative_to(package)).startswith(mutation.where) and mutation.old in file.read_text()
    ]
    assert len(candidates) == 1, f"{mutation.method}: {mutation.old!r} stands in {len(candidates)} files"
    assert candidates[0].read_text().count(mutation.old) == 1, f"{mutation.method}: {mutation.old!r} stands repeatedly"
    return candidates[0]


def test_of(tree: Path, mutation: Mutation) -> str:
    name, bracket, case = mutation.test.partition("[")
    files = [f for f in sorted((tree / "tests").rglob("test_*.py")) if f"def {name}(" in f.read_text()]
    own = [f for f in files if mutation.method in str(f.relative_to(tree))] if len(files) > 1 else files
    assert len(own) == 1, f"{mutation.method}: {name} is in {len(own)} files"
    return f"{own[0]}::{name}{bracket}{case}"


def noticed(tree: Path, mutation: Mutation, log: Path) -> bool:
    """Whether the test fails with the mutation."""
    file = file_of(tree, mutation)
    original = file.read_text()
    file.write_text(original.replace(mutation.old, mutation.new))
    try:
        status = status_of(tree, [test_of(tree, mutation)], log)
    finally:
        file.write_text(original)
    assert status in (0, 1), f"{mutation.method}: {mutation.test} could not run, see {log}"
    return status == 1


def status_of(tree: Path, tests: list[str], log: Path) -> int:
    """pytest's exit status, in a child of this process, which has done the long imports."""
    child = os.fork()
    if child == 0:
        run_tests(tree, tests, log)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_tests(tree: Path, tests: list[str], log: Path) -> None:
    """Never returns."""
    import pytest

    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        os.chdir(tree)
        sys.path.insert(0, str(tree))
        sys.dont_write_bytecode = True
        os.environ["PYTHONPATH"] = str(tree)
        for name in [m for m in sys.modules if m.split(".")[0] in ("tests", "nnunet_ssl")]:
            del sys.modules[name]
        options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tree)]
        status = int(pytest.main([*options, *tests]))
    finally:
        os._exit(status)


def main(methods: list[str]) -> int:
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer  # noqa: F401 - once, for all children
    import torch

    torch.set_num_threads(1)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("nnunet_ssl", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        log = tree / "log.txt"
        chosen = [m for m in mutations() if not methods or m.method in methods]
        if status_of(tree, sorted({test_of(tree, m) for m in chosen}), log):
            print(log.read_text()[-4000:], "These tests fail without any mutation.", sep="\n")
            return 1
        for mutation in chosen:
            caught = noticed(tree, mutation, log)
            missed += not caught
            word = "caught" if caught else "MISSED"
            print(f"{word}  {mutation.method}: {mutation.what} ({mutation.test})", flush=True)
    print(f"{missed} of {len(chosen)} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
