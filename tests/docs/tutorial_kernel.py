"""Runs the commands of a notebook in forks of one process that has done the imports, which take most of the time."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.integration.command_server import run_forked


def install(shell: Any) -> None:
    """Let a line that begins with an exclamation mark run as a fork, its words unchanged."""

    def system(line: str) -> None:
        with TemporaryDirectory() as folder:
            output = Path(folder, "output.txt")
            output.touch()
            variables = {
                name: value for name, value in os.environ.items() if name != "MPLBACKEND"
            }  # the notebook's own
            run_forked(shlex.split(line), variables, os.getcwd(), str(output))
            print(as_on_a_terminal(output.read_bytes().decode(errors="replace")), end="")

    shell.system = system


def as_on_a_terminal(text: str) -> str:
    """Of a line that was written over again, such as a progress bar, the last version."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
