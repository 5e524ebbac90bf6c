"""The error that is meant for a person: what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable

INSTALL = "pip install nnunet-ssl, or pip install . in a clone"  # either way, whether or not PyPI has it


class SemiSupervisedError(RuntimeError):
    """Wrong input or settings. The message is complete: the command line prints it without a traceback."""


def complain(summary: str, problems: Iterable[str] = (), remedy: str = "") -> SemiSupervisedError:
    """Build one error that lists every problem at once.

    Args:
        summary: what is wrong, one sentence.
        problems: one line each, with path or case id.
        remedy: what to do about it.
    """
    lines = [summary, *(f"  - {problem}" for problem in problems)]
    if remedy:
        lines.append(remedy)
    return SemiSupervisedError("\n".join(lines))
