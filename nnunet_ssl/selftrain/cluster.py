"""Scripts that run the steps on a cluster: an array for those that may run at the same time, one after the other."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from nnunet_ssl.data.folders import write_whole
from nnunet_ssl.evaluation.benchmark.cluster_scripts import Resources, write_script
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.start import chosen_steps, introduce
from nnunet_ssl.selftrain.steps import CONTROL, Step
from nnunet_ssl.selftrain.work import COMMAND, work_of


def write_only(run: Run, kind: str, resources: Resources, look: bool) -> int:
    """Write the scripts that run the steps elsewhere: one array for the steps that may run at the same time."""
    work, steps = work_of(run), chosen_steps(run, look)
    introduce(run, steps)
    todo = [step for step in steps if not work.is_complete(run.output, step)]
    if not todo:
        print(f"All {len(steps)} steps are complete. Their table: {work.report.format(output=run.output)}")
        return 0
    if kind == "sh":  # one after the other, in their order
        written = write_script(kind, run.output, todo, resources, work)
        print(f"{written.path}: {len(todo)} of {len(steps)} steps\n{written.instructions}")
        return 0
    paths = [
        write_script(kind, run.output, level, resources, work, f"_{number:02d}").path
        for number, level in enumerate(levels(todo), 1)
    ]
    path = os.path.join(run.output, f"submit_all_{kind}.sh")
    write_whole(path, chain(kind, paths).encode())
    os.chmod(path, 0o755)
    print(f"{path}: {len(todo)} of {len(steps)} steps in {len(paths)} arrays, each of which waits for the one before")
    print(f"Submit: bash {shlex.quote(path)}\nWhen the tasks are done: {work.report.format(output=run.output)}")
    return 0


def levels(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that need nothing from each other, together; each group needs only those before it.

    The long control is in the last group, since nothing waits for it, and the group after it would.
    """
    depth: dict[str, int] = {}
    for step in steps:  # in an order in which they can be done
        depth[step.id] = 1 + max((depth[earlier] for earlier in step.after if earlier in depth), default=0)
    depth |= {step.id: max(depth.values()) for step in steps if step.kind == CONTROL}
    return [[s for s in steps if depth[s.id] == level] for level in sorted(set(depth.values()))]


def chain(kind: str, paths: Sequence[str]) -> str:
    """A shell script that submits arrays, each to begin when all tasks of the one before have ended well."""
    number = "| sed -n 's/^Job <\\([0-9]*\\)>.*/\\1/p'"  # "Job <123> is submitted to queue <long>."
    submit = {
        "slurm": ("sbatch --parsable {path}", 'sbatch --parsable --dependency=afterok:"$last" {path}'),
        "pbs": ("qsub {path}", 'qsub -W depend=afterok:"$last" {path}'),
        "lsf": (f"bsub < {{path}} {number}", f'bsub -w "done($last)" < {{path}} {number}'),
    }
    first, later = submit[kind]
    lines = ["#!/bin/bash", f"# Written by nnunet_ssl {COMMAND}: semi-supervised self-training.", "set -e -o pipefail"]
    for index, path in enumerate(paths):
        command = (later if index else first).format(path=shlex.quote(path))
        lines += [f"last=$({command})", f'echo "{os.path.basename(path)}: $last"']
    return "\n".join(lines) + "\n"
