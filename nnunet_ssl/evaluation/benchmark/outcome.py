"""What became of the jobs: the table at the end of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from nnunet_ssl.evaluation.benchmark.job_run import Named
from nnunet_ssl.evaluation.benchmark.jobs import (
    COMPLETE,
    FAILED,
    WAITING,
    Job,
    Record,
    is_complete,
    log_path,
    read_record,
)
from nnunet_ssl.evaluation.benchmark.progress import ORDER, duration
from nnunet_ssl.methods import align

LINES_SHOWN = 8  # of the log of a failed job; the record has more
HEADER = ("dataset", "configuration", "split", "fold", "seed", "trainer", "state", "time", "s/step", "memory")


def states(output: str, jobs: Sequence[Job]) -> dict[str, str]:
    """Job id -> state; of a job that counts as complete only if it is so with the settings of today."""
    result = {}
    for job in jobs:
        record = read_record(output, job.id)
        state = record.state if record else WAITING
        result[job.id] = COMPLETE if is_complete(output, job) else (WAITING if state == COMPLETE else state)
    return result


def outcome_of_steps(output: str, jobs: Sequence[Named], complete: Collection[str]) -> str:
    """The same of jobs whose ids say everything; ``complete``: ids of those of which nothing is left to do."""
    rows, failed, counts = [("step", "state", "time", "memory")], list[str](), Counter[str]()
    for job in jobs:
        record = read_record(output, job.id)
        state = COMPLETE if job.id in complete else WAITING
        if record is not None and state == WAITING and record.state != COMPLETE:
            state = record.state
        counts[state] += 1
        memory = "" if record is None or record.peak_memory_mb is None else f"{record.peak_memory_mb / 1024:.1f} GB"
        time = "" if record is None else duration(record.seconds)
        rows.append((job.id.replace("__", " "), state.upper() if state == FAILED else state, time, memory))
        if state == FAILED and record is not None:
            failed += _failure(output, job.id, record)
    total = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    return "\n".join([*align(rows), *failed, "", f"{sum(counts.values())} steps: {total}."])


def _failure(output: str, job_id: str, record: Record) -> list[str]:
    lines = (record.error or "").splitlines()[-LINES_SHOWN:]
    return ["", f"FAILED: {job_id}", *(f"  {line}" for line in lines), f"  The whole log: {log_path(output, job_id)}"]


def outcome(output: str, jobs: Sequence[Job]) -> str:
    """One row per job, and below it the end of the log of each that failed."""
    found = states(output, jobs)
    rows = [HEADER]
    failed = []
    for job in jobs:
        record, state = read_record(output, job.id), found[job.id]
        figures = ("", "", "")
        if record is not None:
            step = "" if record.seconds_per_step is None else f"{record.seconds_per_step:.3g}"
            memory = "" if record.peak_memory_mb is None else f"{record.peak_memory_mb / 1024:.1f} GB"
            figures = (duration(record.seconds), step, memory)
        what = (job.dataset, job.configuration, job.split, str(job.fold), str(job.seed), job.trainer)
        rows.append((*what, state.upper() if state == FAILED else state, *figures))
        if state == FAILED and record is not None:
            failed += _failure(output, job.id, record)
    counts = Counter(found.values())
    total = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    return "\n".join([*align(rows), *failed, "", f"{len(jobs)} jobs: {total}."])
