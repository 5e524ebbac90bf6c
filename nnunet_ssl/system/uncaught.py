"""Errors meant for a person end nnU-Net's commands as they end ours: with the message alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system.failures import find_failure

PACKAGE = __name__.split(".")[0]
Hook = Callable[[type[BaseException], BaseException, TracebackType | None], object]


def explain_uncaught() -> None:
    """Let an error that ends this process be told by its message, where that says all; others keep their traceback.

    Called when nnU-Net looks for a trainer of ours, so that its own commands follow. The processes of a training on
    several GPUs do not: PyTorch catches their errors and shows the first with its traceback, the message last.
    """
    if not getattr(sys.excepthook, "keywords", {}).get("explained"):
        sys.excepthook = partial(_tell, otherwise=sys.excepthook, explained=True)


def explanation(error: BaseException) -> str:
    """What to print in place of a traceback; empty where that is needed."""
    if isinstance(error, SemiSupervisedError) or (isinstance(error, NotImplementedError) and _raised_here(error)):
        return str(error)
    failure = find_failure(error)
    return str(failure) if failure is not None and failure.filename is not None else ""


def _tell(
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    *,
    otherwise: Hook,
    explained: bool,
) -> None:
    text = explanation(error)
    if text:
        print(f"\n{text}", file=sys.stderr)
    else:
        otherwise(kind, error, trace)


def _raised_here(error: BaseException) -> bool:
    """Whether this package raised it: a trainer says so that it does not support something."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).split(".")[0] == PACKAGE
