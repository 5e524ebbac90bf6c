"""The error that is meant for a person: what is wrong, where, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable

# PyPI does not have it
INSTALL = "pip install .   (in a clone of nnunet_ssl; or: pip install nnunet_ssl-VERSION-py3-none-any.whl)"


LONGEST = 5  # names of cases in one line


class SemiSupervisedError(RuntimeError):
    """Wrong input or settings. The message is complete: the command line prints it without a traceback.

    Attributes:
        remedy: the last part of the message, what to do; may be empty.
    """

    remedy = ""

    @property
    def finding(self) -> str:
        """The message without its remedy."""
        return str(self).removesuffix(self.remedy).rstrip("\n")


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
    error = SemiSupervisedError("\n".join(lines))
    error.remedy = remedy
    return error


def one_line(error: Exception) -> str:
    """Our errors take several lines; as an entry of a list they become one."""
    return re.sub(r"\s*\n\s*(- )?", " ", str(error).strip())


def some(names: Iterable[str]) -> str:
    """The first few names and the number of the others."""
    ordered = sorted(names)
    more = len(ordered) - LONGEST
    return ", ".join(ordered[:LONGEST]) + (f" and {more} more" if more > 0 else "")
