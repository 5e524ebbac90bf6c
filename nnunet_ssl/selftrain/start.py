"""What `nnunet_ssl selftrain` does with its options, step by step."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence

from nnunetv2.paths import nnUNet_raw

from nnunet_ssl import discovery
from nnunet_ssl.data.folders import labeled_cases, load_plans, preprocessed_base
from nnunet_ssl.data.nnunet_folds import nnunet_folds, write_folds
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.evaluation.benchmark import provenance
from nnunet_ssl.evaluation.benchmark.cluster_scripts import Resources
from nnunet_ssl.evaluation.benchmark.run_local import run_in_foreground, run_local
from nnunet_ssl.evaluation.benchmark.slurm import LOCAL, SLURM, run_submitted
from nnunet_ssl.selftrain import dataset_ids, disk
from nnunet_ssl.selftrain.checks import note_checked_pool, problems_of
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import FILE, SelfTraining, read_settings, write_settings
from nnunet_ssl.selftrain.steps import SELECT, Step
from nnunet_ssl.selftrain.warnings import warnings
from nnunet_ssl.selftrain.work import work_of
from nnunet_ssl.system.hashes import hash_of
from nnunet_ssl.training.settings import BLOCK


def begin(settings: SelfTraining, output: str, first_id: int | None = None) -> Run:
    """Check everything, choose the students' datasets, write OUT/selftrain.json. Nothing that is done is undone.

    Raises:
        SemiSupervisedError: anything that would stop a step, all at once; nothing is written then.
    """
    discovery.register()
    settings = _resolved(settings)
    former = read_settings(output) if os.path.isfile(os.path.join(output, FILE)) else None
    own = former.datasets if former is not None else ()
    names, problems = dataset_ids.choose(settings.dataset, settings.rounds, first_id, own)
    run = Run(output, dataclasses.replace(settings, datasets=names))
    settings = run.settings
    if former is not None and (former.dataset, former.configuration) != (settings.dataset, settings.configuration):
        what = f"holds the self-training of {former.dataset}, {former.configuration}"
        problems.append(f"{output} {what} -> give another folder, -o")
    problems += problems_of(run)
    if problems:
        raise complain("The self-training cannot begin:", dict.fromkeys(problems), "Nothing was started or written.")
    os.makedirs(output, exist_ok=True)
    if settings.rounds > 0:
        note_checked_pool(run)
    for name in settings.datasets[: settings.rounds]:  # so that another run does not choose the same
        os.makedirs(os.path.join(nnUNet_raw, name), exist_ok=True)
    if settings.split is None:  # trainings that begin at the same time would all write it
        write_folds(run.base, nnunet_folds(run.base, labeled_cases(run.base, run.plans)))
    write_settings(output, settings, _facts(run))
    return run


def _resolved(settings: SelfTraining) -> SelfTraining:
    """The dataset by its full name; the split that the plans name, where no other was asked for."""
    try:
        base = preprocessed_base(settings.dataset)
        plans = load_plans(base, settings.plans)
    except SemiSupervisedError:
        return settings  # told with all other problems
    block = plans.get(BLOCK)
    split = settings.split or (block.get("split") if isinstance(block, dict) else None)
    return dataclasses.replace(settings, dataset=os.path.basename(base), split=split)


def _facts(run: Run) -> dict[str, object]:
    """For people, and to tell later what a result was made with."""
    cases = {str(number): [fold.labeled, fold.unlabeled, fold.val] for number, fold in run.folds.items()}
    return {
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
        "folds_sha256": hash_of(cases),
        "pool": {"cases": len(run.pool), "withheld": len(run.withheld), "sha256": run.pool_hash}
        if run.settings.rounds
        else None,
        "labeled": {str(number): len(fold.labeled) for number, fold in run.folds.items()},
        "warnings": warnings(run.settings),
    }


def introduce(run: Run, steps: Sequence[Step]) -> None:
    """A few lines before the work."""
    keys, settings = Keys(run), run.settings
    done = sum(keys.is_complete(step) for step in steps)
    labeled, pool = len(run.fold.labeled), len(run.pool) if settings.rounds else 0
    print(
        f"Semi-supervised self-training in {run.output}: {labeled} labelled cases, {pool} without label, "
        f"{settings.rounds} round{'' if settings.rounds == 1 else 's'}; {len(steps)} steps, {done} already complete."
    )
    if settings.rounds:
        print(f"Disk, for each round: {disk.estimate(run).text}.")
    for warning in warnings(settings):
        print(f"Warning: {warning}", file=sys.stderr)
    sys.stdout.flush()


def chosen_steps(run: Run, look: bool) -> list[Step]:
    """All steps; with ``look`` those up to the next selection that is not there yet."""
    keys = Keys(run)
    steps = [*keys.steps.values()]
    if not look:
        return steps
    ends = [i for i, step in enumerate(steps) if step.kind == SELECT and not keys.is_complete(step)]
    return steps[: ends[0] + 1] if ends else steps


def run_all(run: Run, runner: str, processes: int | None, resources: Resources, look: bool) -> list[Step]:
    """Run what is left. Returns the steps; what became of them stands in their records."""
    work, steps = work_of(run), chosen_steps(run, look)
    introduce(run, steps)
    if all(work.is_complete(run.output, step) for step in steps):
        return steps
    if runner == "local":
        run_local(run.output, steps, run.settings.device, processes, work)
    else:
        run_submitted(run.output, steps, resources, SLURM if runner == "slurm" else LOCAL, True, work)
    return steps


def run_single(output: str, step_id: str) -> int:
    """One step, in the foreground. Returns 1 if it is not complete in the end."""
    discovery.register()
    run = Run(output, read_settings(output))
    work, steps = work_of(run), Keys(run).steps
    if step_id not in steps:
        raise complain(f'{output} has no step "{step_id}". Its steps:', steps, "Give one with --job.")
    step = steps[step_id]
    waiting = [earlier for earlier in step.after if not work.is_complete(output, steps[earlier])]
    if waiting:
        print(f"{step_id} needs the result of {', '.join(waiting)}; nothing was done.", file=sys.stderr)
        return 1
    return run_in_foreground(output, step, run.settings.device, work)
