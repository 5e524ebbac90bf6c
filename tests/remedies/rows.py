"""A row of a table of complaints: who complains, what the remedy says, and how it is followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.doctor.examine import examine_dataset
from nnunet_ssl.doctor.report import Finding, Section, render
from nnunet_ssl.errors import SemiSupervisedError
from tests.remedies.obey import obey
from tests.remedies.sites import that_spoke


@dataclass(frozen=True)
class Here:
    """Where a row happens.

    Attributes:
        base: nnUNet_preprocessed/DATASET; an empty folder where a row needs none.
        folder: for files of the test; {folder} in the words of a command.
    """

    base: Path
    folder: Path
    patch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture

    def said_by(self, words: tuple[str, ...]) -> str:
        """What a command says on stderr; empty if it does its work."""
        words = tuple(word.replace("{folder}", str(self.folder)) for word in words)
        self.capsys.readouterr()
        try:
            failed = main([*words]) != 0
        except SystemExit as end:
            failed = end.code != 0
        return self.capsys.readouterr().err.removeprefix(f"nnunet_ssl {words[0]}: ") if failed else ""

    def file(self, name: str, content: object) -> str:
        """Write a file; what is no bytes as JSON."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)


Ask = tuple[str, ...] | Callable[[Here], str]
OBEY = "obey"  # the message is a list of commands


@dataclass(frozen=True)
class Row:
    """One complaint.

    Attributes:
        site: the place in the package that advises, see sites.py.
        ask: words of a command, or what returns the message.
        advises: words of the remedy.
        cure: OBEY; or the words of the command that is advised instead; or what a person does, who then asks the same.
        fault: brings the complaint about.
        words: word in capitals -> what a person writes in its place.
        dataset: recipe of the tiny dataset; None: no dataset is needed.
    """

    site: str
    ask: Ask
    advises: str
    cure: str | tuple[str, ...] | Callable[[Here], object]
    fault: Callable[[Here], object] = lambda here: None
    then: Ask | None = None  # who is asked afterwards; None: the same
    words: tuple[tuple[str, str], ...] = ()
    dataset: tuple[tuple[str, object], ...] | None = ()


def check(row: Row, here: Here) -> None:
    """The complaint is there, its remedy is followed, and nothing is complained of any more."""
    row.fault(here)
    with that_spoke() as spoke:
        message = _said(row.ask, here)
    assert row.advises in message, message
    assert row.site in spoke, spoke
    if row.cure == OBEY:
        obey(message, here.patch, dict(row.words))
    elif callable(row.cure):
        row.cure(here)
    ask = row.cure if isinstance(row.cure, tuple) else row.then or row.ask
    with that_spoke() as spoke:
        message = _said(ask, here)
    assert message == "" and row.site not in spoke, message


def _said(ask: Ask, here: Here) -> str:
    return here.said_by(ask) if isinstance(ask, tuple) else ask(here)


def message_of(call: Callable[[Here], object]) -> Callable[[Here], str]:
    """What a function complains of; empty if nothing."""

    def ask(here: Here) -> str:
        try:
            call(here)
        except SemiSupervisedError as error:
            return str(error)
        return ""

    return ask


def of_doctor(item: str, *configurations: str) -> Callable[[Here], str]:
    """What `nnunet_ssl doctor -d 901` advises about an item; empty where it advises nothing."""

    def ask(here: Here) -> str:
        sections = examine_dataset(901, configurations=list(configurations) or None)
        return shown(item, [finding for section in sections for finding in section.findings])

    return ask


def shown(item: str, findings: list[Finding]) -> str:
    """The findings on an item that come with a remedy, as they are printed."""
    wanted = [finding for finding in findings if finding.item == item and finding.remedy]
    return render([Section("", wanted)]) if wanted else ""
