"""Whether nnU-Net finds our trainers, asked in a fresh process as `nnUNetv2_train` would be.

In this process the answer would be too good: with our package imported already, layouts work that fail elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_ssl.discovery import VARIABLE
from nnunet_ssl.doctor.environment import EXPORT
from nnunet_ssl.doctor.report import OK, WRONG, Finding
from nnunet_ssl.errors import INSTALL
from nnunet_ssl.system.processes import lifeline
from nnunet_ssl.trainers import TRAINERS

TIMEOUT = 600  # seconds; the modules of other people's directories are imported too
CHILD = Path(__file__).with_name("lookup_child.py")


def trainer_findings(answers: dict[str, dict[str, Any]] | str) -> list[Finding]:
    """One finding per trainer: found by nnU-Net's own look-up, and the very class of the installed package?

    Args:
        answers: see :func:`ask`, or why there are none.
    """
    if isinstance(answers, str):
        remedy = f"look at the directories in {VARIABLE}; then {EXPORT}"
        return [Finding(WRONG, "look-up", f"nnU-Net's search for trainers ended early: {answers}", remedy)]
    return [_finding(name, answers[name]) for name in TRAINERS]


def ask(names: Sequence[str], examination: dict[str, Any] | None = None) -> dict[str, Any]:
    """nnU-Net's answers in a process of its own, with this environment and without the current directory.

    Args:
        names: of trainers.
        examination: arguments of :func:`nnunet_ssl.doctor.examination.examine`, to be done there, too.

    Returns:
        "trainers": name -> {"error": text} or {"module": where the class says it is from, "same": bool}; and
        "sections", if the examination came to its end there.

    Raises:
        RuntimeError: that process ended without an answer.
    """
    with tempfile.TemporaryDirectory() as folder, lifeline() as stdin:
        answer = Path(folder, "answer.json")
        question = json.dumps({"names": list(names), "examination": examination})
        try:
            done = subprocess.run(
                [sys.executable, str(CHILD), str(answer), question],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"no answer within {TIMEOUT} s") from error
        if not answer.is_file():
            lines = done.stdout.strip().splitlines() or ["no output"]
            raise RuntimeError(f"exit code {done.returncode}, {lines[-1]}")
        answers: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return answers


def _finding(name: str, answer: dict[str, Any]) -> Finding:
    if "error" in answer:
        return Finding(WRONG, name, f"not found: {answer['error']}", _remedy(answer["error"]))
    if not answer["same"]:
        text = f"nnU-Net finds another class of this name, from {answer['module']}"
        return Finding(WRONG, name, text, f"unset {VARIABLE}; {EXPORT}  (it must not point to the package itself)")
    return Finding(OK, name, f"found, {answer['module']}")


def _remedy(error: str) -> str:
    if "belongs to the package nnunet_ssl, which is not installed" in error:  # said by the module that nnU-Net scans
        return INSTALL
    if error.startswith("Could not find"):
        return EXPORT
    return f"a module in a directory of {VARIABLE} stops nnU-Net's search: repair it, or take that directory out"
