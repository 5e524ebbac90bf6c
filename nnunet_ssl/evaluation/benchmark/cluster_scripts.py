"""Scripts for clusters, and for a plain shell: an array with one task per job.

Each task runs ``nnunet_ssl COMMAND --job ID -o OUT``, which skips what is done and continues what was cut off.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunet_ssl import discovery
from nnunet_ssl.data.folders import write_whole
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.job_run import Named
from nnunet_ssl.evaluation.benchmark.work import BENCHMARK, Work

KINDS = ("slurm", "pbs", "lsf", "sh")
TABLE = "jobs.txt"  # one job id per line; task k of the array runs line k
NOTICE = 300  # seconds before the time limit at which SLURM signals the task
RESTARTS = 50  # of one task after time limits, so that a limit too short for any progress does not go on for ever
LOGS = "cluster"


@dataclass(frozen=True)
class Resources:
    """What one job asks the cluster for.

    Attributes:
        time: hours:minutes:seconds; may be shorter than the training, which then continues in a new task.
        memory: GB.
        cpus: cores.
        gpus: 0 or 1; nnU-Net trains a model on one.
        partition: queue, or None for the cluster's default.
        directives: further lines, without the mark (#SBATCH) in front.
        at_once: tasks that may run at the same time; None: as the cluster likes.
    """

    time: str = "12:00:00"
    memory: int = 32
    cpus: int = 8
    gpus: int = 1
    partition: str | None = None
    directives: tuple[str, ...] = ()
    at_once: int | None = None

    @property
    def minutes(self) -> int:
        """The time limit, rounded up.

        Raises:
            SemiSupervisedError: another form than hours:minutes:seconds.
        """
        parts = self.time.split(":")
        if len(parts) != 3 or not all(part.isdigit() for part in parts) or not any(map(int, parts)):
            raise complain(f'--time "{self.time}" is not of the form hours:minutes:seconds, for example 12:00:00.')
        hours, minutes, seconds = map(int, parts)
        return hours * 60 + minutes + (seconds > 0)


@dataclass(frozen=True)
class Script:
    """What a script is written for.

    Attributes:
        output: folder of records and logs, absolute.
        number: of jobs.
        resources: of each.
        command: the subcommand that runs a job.
        table: name of the file with the jobs' ids.
    """

    output: str
    number: int
    resources: Resources
    command: str
    table: str


@dataclass(frozen=True)
class Written:
    """path: of the script; instructions: how to submit it."""

    path: str
    instructions: str


def write_script(
    kind: str, output: str, jobs: Sequence[Named], resources: Resources, work: Work = BENCHMARK, part: str = ""
) -> Written:
    """Write OUT/submit.<kind> and the job table.

    Args:
        kind: one of KINDS.
        jobs: those still to do, at least one.
        work: what kind of jobs they are.
        part: to be added to the names of both files where there are several scripts.
    """
    output = os.path.abspath(output)
    _ = resources.minutes
    os.makedirs(os.path.join(output, LOGS), exist_ok=True)
    stem, ending = os.path.splitext(TABLE)
    script = Script(output, len(jobs), resources, work.command, f"{stem}{part}{ending}")
    write_whole(os.path.join(output, script.table), "".join(f"{job.id}\n" for job in jobs).encode())
    text, instructions = WRITERS[kind](script)
    path = os.path.join(output, f"submit{part}.{kind}")
    write_whole(path, text.encode())
    os.chmod(path, 0o755)
    report = work.report.format(output=shlex.quote(output))
    return Written(path, f"{instructions.format(path=shlex.quote(path))}\nWhen the tasks are done: {report}")


def exports(environment: Mapping[str, str]) -> str:
    """nnU-Net's variables as they are now; a task starts with an environment of its own."""
    variables = {name: value for name, value in environment.items() if name.startswith("nnUNet_")}
    variables[discovery.VARIABLE] = discovery.ext_trainer_value(environment.get(discovery.VARIABLE))
    if "PYTHONPATH" in environment:
        variables["PYTHONPATH"] = environment["PYTHONPATH"]
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items()))


def _header(mark: str, options: Sequence[str], resources: Resources) -> str:
    return "\n".join(["#!/bin/bash", *(f"{mark} {option}" for option in (*options, *resources.directives))])


def _body(script: Script, index: str, ending: str) -> str:
    """Everything below the header.

    Args:
        index: shell variable with the task's number, from 1.
        ending: shell commands that define what is done on a signal.
    """
    return f"""

# Written by nnunet_ssl {script.command}: semi-supervised training for nnU-Net. One task per line of {script.table}.
out={shlex.quote(script.output)}
{exports(os.environ)}
job=$(sed -n "${{{index}}}p" "$out/{script.table}")
echo "log: $out/jobs/$job/log.txt"
{ending}
{shlex.join(command_words(script.command))} --job "$job" -o "$out" &
child=$!
wait "$child"
"""


def command_words(command: str) -> list[str]:
    """`nnunet_ssl COMMAND` of this very Python, so that no environment has to be activated."""
    return [sys.executable, "-m", "nnunet_ssl.cli", command]


def _slurm(script: Script) -> tuple[str, str]:
    output, number, resources = script.output, script.number, script.resources
    options = [
        "--job-name=nnunet_ssl",
        f"--array=1-{number}" + (f"%{resources.at_once}" if resources.at_once else ""),
        f"--time={resources.time}",
        f"--cpus-per-task={resources.cpus}",
        f"--mem={resources.memory}G",
        *([f"--gres=gpu:{resources.gpus}"] if resources.gpus else []),
        *([f"--partition={resources.partition}"] if resources.partition else []),
        f'--output="{output}/{LOGS}/slurm_%A_%a.log"',
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{NOTICE}",
    ]
    ending = f"""
stop() {{ kill -TERM "$child" 2>/dev/null; wait "$child"; }}
again() {{  # the time limit is near: end the training at its last checkpoint, wait in the queue, continue with --c
    stop
    if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {RESTARTS} ]; then
        echo "time limit: $job waits in the queue again"
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    else
        echo "given up after {RESTARTS} restarts: ask for more --time, or lower save_every"
    fi
    exit 1
}}
trap again USR1
trap 'stop; exit 143' TERM"""
    text = _header("#SBATCH", options, resources) + _body(script, "SLURM_ARRAY_TASK_ID", ending)
    return text, "Submit: sbatch {path}\nWatch: squeue --me; a task at its time limit goes back to the queue by itself."


ROUNDS = (
    "Training runs longer than the time limit continue in a second round, a third, and so on; finished jobs take no "
    "time:"
)


def _pbs(script: Script) -> tuple[str, str]:
    output, number, resources = script.output, script.number, script.resources
    gpus = f":ngpus={resources.gpus}" if resources.gpus else ""
    options = [
        "-N nnunet_ssl",
        f"-J 1-{max(2, number)}" + (f"%{resources.at_once}" if resources.at_once else ""),  # PBS has no array of one
        f"-l select=1:ncpus={resources.cpus}:mem={resources.memory}gb{gpus}",
        f"-l walltime={resources.time}",
        *([f"-q {resources.partition}"] if resources.partition else []),
        f"-o {output}/{LOGS}/",
        "-j oe",
        "-r y",
    ]
    text = _header("#PBS", options, resources) + _body(script, "PBS_ARRAY_INDEX", _end_on_term("PBS_ARRAY_INDEX"))
    return text, (f'Submit: first=$(qsub {{path}})\n{ROUNDS}\n  qsub -W depend=afterany:"$first" {{path}}')


def _lsf(script: Script) -> tuple[str, str]:
    output, number, resources = script.output, script.number, script.resources
    limit = f"%{resources.at_once}" if resources.at_once else ""
    hours, minutes = divmod(resources.minutes, 60)
    options = [
        f'-J "nnunet_ssl[1-{number}]{limit}"',
        f"-n {resources.cpus}",
        '-R "span[hosts=1]"',
        f"-M {resources.memory}GB",
        f'-R "rusage[mem={resources.memory}GB]"',
        f"-W {hours}:{minutes:02d}",
        *([f'-gpu "num={resources.gpus}:j_exclusive=yes"'] if resources.gpus else []),
        *([f"-q {resources.partition}"] if resources.partition else []),
        f'-o "{output}/{LOGS}/lsf_%J_%I.log"',
        "-r",
    ]
    text = _header("#BSUB", options, resources) + _body(script, "LSB_JOBINDEX", _end_on_term("LSB_JOBINDEX"))
    return text, (f'Submit: bsub < {{path}}\n{ROUNDS}\n  bsub -w "ended(JOBID)" < {{path}}')


def _end_on_term(index: str) -> str:
    """The time limit comes as SIGTERM (LSF: first SIGINT or SIGUSR2)."""
    return f"""[ -n "$job" ] || {{ echo "no job in line ${index}"; exit 0; }}
stop() {{ kill -TERM "$child" 2>/dev/null; wait "$child"; exit 143; }}
trap stop TERM INT USR2"""


def _shell(script: Script) -> tuple[str, str]:
    text = f"""#!/bin/bash
# Written by nnunet_ssl {script.command}: semi-supervised training for nnU-Net. Runs the jobs of {script.table}, one
# after the other.
out={shlex.quote(script.output)}
{exports(os.environ)}
failed=0
while read -r job <&3; do
    echo "log: $out/jobs/$job/log.txt"
    {shlex.join(command_words(script.command))} --job "$job" -o "$out" || failed=$((failed + 1))
done 3< "$out/{script.table}"
echo "$failed of {script.number} jobs failed"
[ "$failed" -eq 0 ]
"""
    return text, "Run: bash {path}"


WRITERS = {"slurm": _slurm, "pbs": _pbs, "lsf": _lsf, "sh": _shell}
