"""Findings, and how they are printed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from nnunet_ssl.errors import SemiSupervisedError

OK, NOTE, WRONG = "ok", "note", "WRONG"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        mark: OK, NOTE (worth knowing, or not there but optional) or WRONG.
        item: what was looked at.
        text: what was found; further lines are indented below it.
        remedy: what to do, commands where there are any; one step per line.
    """

    mark: str
    item: str
    text: str
    remedy: str = ""


def from_error(item: str, error: SemiSupervisedError, remedy: str = "") -> Finding:
    """What an error says, with the remedy given here, or else its own."""
    steps = "\n".join(line.strip() for line in (remedy or error.remedy).splitlines())
    return Finding(WRONG, item, error.finding, steps)


@dataclass(frozen=True)
class Section:
    """Findings that belong together."""

    title: str
    findings: list[Finding]

    def to_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Section:
        """What :meth:`to_json` gave."""
        return cls(content["title"], [Finding(**finding) for finding in content["findings"]])


def is_wrong(sections: Iterable[Section]) -> bool:
    """Whether anything has to be put right before training."""
    return any(finding.mark == WRONG for section in sections for finding in section.findings)


def render(sections: Iterable[Section]) -> str:
    """Aligned text: mark, item, what was found; a remedy stands below its problem."""
    sections = list(sections)
    width = max((len(f.item) for s in sections for f in s.findings), default=0)
    margin = " " * (9 + width)
    lines: list[str] = []
    for section in sections:
        lines += ["", section.title]
        for finding in section.findings:
            first, *rest = finding.text.splitlines() or [""]
            lines.append(f"  {finding.mark:<5} {finding.item:<{width}} {first}".rstrip())
            lines += [f"{margin}{line}" for line in rest]
            lines += [f"{margin}-> {line}" for line in finding.remedy.splitlines()]
    wrong = sum(f.mark == WRONG for s in sections for f in s.findings)
    last = f"{wrong} WRONG, see -> for what to do." if wrong else "Nothing is wrong."
    return "\n".join([*lines[1:], "", last])
