"""What the runners must know of a kind of jobs. A benchmark's is here; others bring their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ssl.evaluation.benchmark.execute import Execution
from nnunet_ssl.evaluation.benchmark.job_run import JobRun
from nnunet_ssl.evaluation.benchmark.jobs import is_complete
from nnunet_ssl.evaluation.benchmark.progress import Board


@dataclass(frozen=True)
class Work:
    """One kind of jobs.

    Attributes:
        command: the subcommand of `nnunet_ssl` whose ``--job ID -o OUT`` runs one of them.
        is_complete: (output, job) -> whether nothing is left to do.
        execution: takes what :class:`JobRun` takes.
        board: (output, jobs, number that run at the same time) -> what is shown meanwhile.
        after: job -> ids of the jobs that must be complete before.
        report: what to type once the tasks of a script are done, with {output}.
    """

    command: str
    is_complete: Callable[[str, Any], bool]
    execution: Callable[..., JobRun]
    board: Callable[[str, Sequence[Any], int], Board]
    after: Callable[[Any], Sequence[str]]
    report: str


BENCHMARK = Work("benchmark", is_complete, Execution, Board, lambda job: (), "nnunet_ssl report {output}")
