"""Submits the jobs with submitit: to SLURM as an array, or to processes of this computer to try the same path."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from nnunet_ssl import discovery
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.cluster_scripts import LOGS, NOTICE, RESTARTS, Resources, command_words
from nnunet_ssl.evaluation.benchmark.job_command import JobCommand
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, RUNNING, read_record
from nnunet_ssl.evaluation.benchmark.progress import display
from nnunet_ssl.evaluation.benchmark.work import BENCHMARK, Work

PERIOD = 5.0  # seconds between two looks at the records
SLURM, LOCAL = "slurm", "local"  # submitit's names
MANY = 1000  # tasks at a time, where nobody asked for a limit
EXTRA = "pip install submitit"


def make_executor(output: str, resources: Resources, cluster: str) -> Any:
    """submitit's executor; ``cluster`` is "slurm" or "local".

    Raises:
        SemiSupervisedError: submitit or SLURM is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise complain("Submitting needs submitit, which is not installed.", remedy=f"Run: {EXTRA}") from error
    folder = os.path.join(output, LOGS, "%j")
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster, slurm_max_num_timeout=RESTARTS)
    except RuntimeError as error:
        raise complain(
            f"The jobs cannot be submitted: {error}",
            remedy="Run this where SLURM's srun and sbatch are installed.",
        ) from error
    executor.update_parameters(timeout_min=resources.minutes, cpus_per_task=resources.cpus, mem_gb=resources.memory)
    if resources.gpus:
        executor.update_parameters(gpus_per_node=resources.gpus)
    if cluster == SLURM:
        if resources.partition:
            executor.update_parameters(slurm_partition=resources.partition)
        executor.update_parameters(
            name="nnunet_ssl",
            slurm_array_parallelism=resources.at_once or MANY,
            slurm_signal_delay_s=min(NOTICE, resources.minutes * 60 // 2),
            slurm_additional_parameters=_additional(resources.directives),
        )
    return executor


def _additional(directives: Sequence[str]) -> dict[str, Any]:
    """("--account=abc", "--exclusive") -> {"account": "abc", "exclusive": True}."""
    pairs = (directive.lstrip("-").partition("=") for directive in directives)
    return {"requeue": True, **{name: value if equals else True for name, equals, value in pairs}}


def run_submitted(
    output: str, jobs: Sequence[Any], resources: Resources, cluster: str, wait: bool, work: Work = BENCHMARK
) -> bool:
    """Submit what is not complete and, if asked to, show the jobs until all have ended.

    SLURM gets all that may begin as one array; on this computer as many run as ``resources.at_once`` says, else one.
    Jobs whose prerequisites have failed are not submitted.

    Returns:
        Whether they have ended. Ctrl-C ends the watching, not the jobs.
    """
    output = os.path.abspath(output)
    waiting = {job.id: job for job in jobs if not work.is_complete(output, job)}
    at_once = resources.at_once or (len(waiting) if cluster == SLURM else 1)
    board = work.board(output, jobs, at_once)
    for job_id in {job.id for job in jobs} - set(waiting):
        board.found(job_id)
    if not waiting:
        return True
    executor = make_executor(output, resources, cluster)
    active: dict[str, Any] = {}

    def ready() -> list[str]:
        states = board.states
        done = [i for i, job in waiting.items() if all(states.get(j, COMPLETE) == COMPLETE for j in work.after(job))]
        return done[: at_once - len(active)] if cluster == LOCAL else done

    with display(board) as shown:
        while active or ready():
            new = ready()
            for job_id in new:
                del waiting[job_id]
            active |= _submit(executor, output, new, work.command)
            if not wait and not waiting:
                return False
            time.sleep(PERIOD if cluster == SLURM else 0.5)
            ended = {job_id for job_id, task in active.items() if task.done()}
            for job_id in active:
                record = read_record(output, job_id)
                if record is not None and (record.state == RUNNING or job_id in ended):
                    board.changed(job_id, record)
            active = {job_id: task for job_id, task in active.items() if job_id not in ended}
            shown.refresh()
    return True


def _submit(executor: Any, output: str, job_ids: Sequence[str], command: str) -> dict[str, Any]:
    """Job id -> submitit's job."""
    if not job_ids:
        return {}
    variables = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
    variables[discovery.VARIABLE] = discovery.ext_trainer_value(os.environ.get(discovery.VARIABLE))
    from submitit.core.utils import FailedJobError

    try:
        with executor.batch():
            tasks = [
                executor.submit(JobCommand([*command_words(command), "--job", job_id, "-o", output], variables))
                for job_id in job_ids
            ]
    except FailedJobError as error:
        raise complain(
            f"sbatch refused the jobs: {error}", remedy=f"See nnunet_ssl {command} --help for its options."
        ) from error
    for job_id, task in zip(job_ids, tasks, strict=True):
        print(f"submitted as {task.job_id}: {job_id}", flush=True)
    return dict(zip(job_ids, tasks, strict=True))
