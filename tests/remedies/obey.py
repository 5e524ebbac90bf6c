"""The commands in a message, and how a test runs them in this process."""

from __future__ import annotations

import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from nnunet_ssl.cli import main

NNUNET = {  # and how each works in one process
    "nnUNetv2_preprocess": ["-np", "1"],
    "nnUNetv2_plan_experiment": [],
    "nnUNetv2_plan_and_preprocess": ["-npfp", "1", "-np", "1"],
}
PROGRAMS = ("nnunet_ssl", *NNUNET, "rm", "mv", "mkdir", "export", "unset")
COMMAND = re.compile(rf"(?:^|: |-> |; then |\()\s*((?:{'|'.join(PROGRAMS)}) .+?)(?= -> |; then |   \(|$)")


def commands_in(message: str) -> list[str]:
    """Every command of a message, in its order: at the start of a line, or after a colon or an arrow."""
    return [match[1].strip() for line in message.splitlines() for match in COMMAND.finditer(line.strip())]


def obey(message: str, monkeypatch: pytest.MonkeyPatch, words: Mapping[str, str] | None = None) -> list[str]:
    """Run the commands of a message one after the other; each must succeed.

    Args:
        words: what a person puts in the place of words like CONFIGURATION.
    """
    commands = commands_in(message)
    assert commands, f"no command in:\n{message}"
    for command in commands:
        for placeholder, value in (words or {}).items():
            command = re.sub(rf"\b{re.escape(placeholder)}\b", value, command)
        run(command, monkeypatch)
    return commands


def run(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = shlex.split(command)
    if program == "nnunet_ssl":
        in_this_process = ["-np", "1"] if arguments[0] == "preprocess" else []
        assert main([*arguments, *in_this_process]) == 0, command
    elif program.startswith("nnUNetv2_"):
        _run_nnunet(program, arguments, monkeypatch)
    elif program in ("export", "unset"):
        _set(arguments, monkeypatch)
    else:
        subprocess.run([program, *arguments], check=True)


def _run_nnunet(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's entry point; its pools are threads: new interpreters import for longer than the work takes."""
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as entry_points

    function = {
        "nnUNetv2_preprocess": entry_points.preprocess_entry,
        "nnUNetv2_plan_experiment": entry_points.plan_experiment_entry,
        "nnUNetv2_plan_and_preprocess": entry_points.plan_and_preprocess_entry,
    }[program]
    with monkeypatch.context() as patch:
        patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
        patch.setenv("nnUNet_n_proc_DA", "1")  # nnU-Net's planner cannot do with none
        patch.setattr(sys, "argv", [program, *arguments, *NNUNET[program]])
        function()


def _set(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for word in arguments:
        variable, equals, value = word.partition("=")
        if not equals:
            monkeypatch.delenv(variable, raising=False)
        elif value == "$(nnunet_ssl":  # shlex cuts $(nnunet_ssl path) in two
            from nnunet_ssl.discovery import external_directory

            monkeypatch.setenv(variable, str(external_directory()))
            return
        else:
            monkeypatch.setenv(variable, value)


def raw(base: Path, part: str = "") -> Path:
    """nnUNet_raw/DATASET/part of a preprocessed dataset."""
    return Path(os.environ["nnUNet_raw"], base.name, part)


def move_images(base: Path, target: Path) -> Path:
    """imagesUn -> another folder."""
    shutil.move(raw(base, "imagesUn"), target)
    return target
