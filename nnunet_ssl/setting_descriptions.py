"""Settings as people read them: for the command line and the tables of the documentation."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Description:
    """One setting as people read it, in help texts and documentation.

    Attributes:
        default, allowed: as they are typed in an assignment.
        symbol: LaTeX, or empty.
    """

    name: str
    symbol: str
    default: str
    allowed: str
    doc: str
    source: str


def describe(settings_class: type) -> list[Description]:
    """Every setting of a dataclass."""
    hints = typing.get_type_hints(settings_class)
    return [
        Description(
            f.name,
            f.metadata.get("symbol", ""),
            as_typed(f.default),
            _allowed(hints[f.name], f.metadata),
            f.metadata.get("doc", ""),
            f.metadata.get("source", ""),
        )
        for f in dataclasses.fields(settings_class)
    ]


def as_typed(value: Any) -> str:
    """As it would be typed in an assignment, which is JSON or plain text."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _allowed(hint: Any, limits: typing.Mapping[str, Any]) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    names = ["null"] if type(None) in options else []
    choices, low, high = (limits.get(k) for k in ("choices", "low", "high"))
    if choices is not None:
        names += map(as_typed, choices)
    elif bool in options:
        names += ["true", "false"]
    elif any(typing.get_origin(option) is list for option in options):
        names.append("a list")
    elif low is not None and high is not None:
        names.append(f"{_short(low)} to {_short(high)}")
    elif low is not None:
        names.append(f"{_short(low)} or more")
    return ", ".join(names)


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)
