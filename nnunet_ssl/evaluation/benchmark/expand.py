"""From a manifest to jobs, with the plans copies that these train with.

All of it happens before the first job: jobs that ran at the same time would write the same files.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from nnunet_ssl.data.folders import preprocessed_base, read_plans
from nnunet_ssl.data.splits import Split, split_to_json
from nnunet_ssl.errors import SemiSupervisedError, complain, one_line
from nnunet_ssl.evaluation.benchmark.checks import Examined, check_folders, entries, examine
from nnunet_ssl.evaluation.benchmark.jobs import Job
from nnunet_ssl.evaluation.benchmark.manifest import Experiment, Manifest
from nnunet_ssl.planning.plans_copy import make_plans_copy, write_plans_copy
from nnunet_ssl.system.hashes import hash_of
from nnunet_ssl.trainers import CONTROL
from nnunet_ssl.training.settings import BLOCK, settings_name

HASH_LENGTH = 6


def prepare(manifest: Manifest, output: str) -> tuple[Manifest, list[Job]]:
    """Check everything, write the plans copies that are not there yet, and list the jobs.

    Returns:
        The manifest with the control in every experiment and datasets by their full name, and its jobs: all trainers
        on a split, fold and seed before the next ones.

    Raises:
        SemiSupervisedError: anything that would stop a job, of all datasets at once; nothing is written then.
    """
    problems = check_folders(output)
    jobs: list[Job] = []
    experiments = []
    for experiment in map(with_control, manifest.experiments):
        found = examine(experiment, unlabeled=experiment.trainers != (CONTROL,))
        problems += found.problems
        own, more = _jobs_of(experiment, found)
        jobs += own
        problems += more
        experiments.append(dataclasses.replace(experiment, dataset=found.name or experiment.dataset))
    problems += [
        f"{job_id}: {times} entries of the manifest lead to this job; put them into separate benchmarks"
        for job_id, times in Counter(job.id for job in jobs).items()
        if times > 1
    ]
    problems += _unwritable(jobs)
    if problems:
        raise complain("The benchmark cannot be run:", dict.fromkeys(problems), "Nothing was started or written.")
    _write_plans(jobs, experiments)
    return dataclasses.replace(manifest, experiments=tuple(experiments)), jobs


def with_control(experiment: Experiment) -> Experiment:
    """nnU-Net on the labelled cases alone comes first, whether or not it was asked for."""
    others = [t for t in experiment.trainers if t != CONTROL]
    return dataclasses.replace(experiment, trainers=(CONTROL, *others))


def _jobs_of(experiment: Experiment, found: Examined) -> tuple[list[Job], list[str]]:
    """The jobs of one dataset, and what is wrong with the settings; nothing is written."""
    known = {settings_name(trainer) for trainer in experiment.trainers}
    strangers = [t for t in experiment.hyperparameters if settings_name(t) not in known]
    problems = [f'hyperparameters of "{t}", which is not among the trainers' for t in strangers]
    jobs: list[Job] = []
    if not found.plans:
        return jobs, problems
    for split in experiment.splits:
        entry = found.splits.splits.get(split) if found.splits else None
        for seed in experiment.seeds:
            named: dict[str, Job] = {}
            for trainer in experiment.trainers:
                try:
                    plans = settled_plans(experiment, found.plans, trainer, split, seed)
                except SemiSupervisedError as error:
                    problems += entries(error)
                    continue
                problems += _refusals(found, trainer, plans, experiment.configurations)
                if entry is not None and trainer in found.trainers:
                    named[trainer] = _job(experiment, found, trainer, split, seed, plans, entry)
            for fold in [f for f in experiment.folds if entry is not None and f < len(entry.folds)]:
                assert entry is not None
                cases = entry.folds[fold]
                for configuration in experiment.configurations:
                    jobs += [
                        dataclasses.replace(
                            job,
                            configuration=configuration,
                            fold=fold,
                            labeled=len(cases.labeled),
                            withheld=len(cases.unlabeled),
                        )
                        for job in named.values()
                    ]
    return jobs, problems


def settled_plans(
    experiment: Experiment, plans: Mapping[str, Any], trainer: str, split: str, seed: int
) -> dict[str, Any]:
    """The plans that a trainer gets, but for their name. Settings of other trainers are left out."""
    training, own = _settings_of(experiment, trainer, seed)
    return make_plans_copy(plans, experiment.plans, split, training, own)


def _settings_of(experiment: Experiment, trainer: str, seed: int) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Training settings with the seed, and the hyper-parameters of this trainer alone."""
    own = {t: v for t, v in experiment.hyperparameters.items() if settings_name(t) == settings_name(trainer) and v}
    return {**experiment.training, "seed": seed}, own


def _job(
    experiment: Experiment, found: Examined, trainer: str, split: str, seed: int, plans: dict[str, Any], entry: Split
) -> Job:
    """The job of a trainer, with configuration and fold still to be filled in.

    The name of its plans copy ends in a hash of everything that shapes the training: other plans, settings or cases
    lead to another name and so to other results folders, which neither overwrites nor continues the old ones.
    """
    digest = training_hash(plans, split_to_json(entry))
    kind = found.trainers[trainer]
    return Job(
        dataset=found.name,
        configuration="",
        plans=copy_name(experiment.plans, split, seed, digest),
        base_plans=experiment.plans,
        trainer=trainer,
        split=split,
        labeled=0,
        withheld=0,
        fold=0,
        seed=seed,
        settings=plans[BLOCK],
        settings_sha256=digest,
        test_images=experiment.test_images,
        test_labels=experiment.test_labels,
        epochs=kind.planned_epochs(plans),
    )


def training_hash(plans: Mapping[str, Any], cases: Any) -> str:
    """Of the plans but for their name, and of the cases, as plain Python."""
    return hash_of([{**plans, "plans_name": ""}, cases])


def copy_name(plans: str, split: str, seed: int, digest: str) -> str:
    """Name of the plans copy with which a trainer trains on a split; others who train the same share the result."""
    return f"{plans}_{split}_s{seed}_{digest[:HASH_LENGTH]}"


def _refusals(found: Examined, trainer: str, plans: dict[str, Any], configurations: tuple[str, ...]) -> list[str]:
    """What the trainer itself says that it cannot do."""
    problems = []
    for configuration in configurations:
        if trainer in found.trainers and configuration in plans["configurations"]:
            try:
                found.trainers[trainer].check_supported(plans, configuration, found.dataset_json)
            except NotImplementedError as error:
                problems.append(f"{found.name}: {one_line(error)}")
    return problems


def _unwritable(jobs: list[Job]) -> list[str]:
    """Plans copies that are missing and cannot be written."""
    copies = {(preprocessed_base(dataset), name) for dataset, name in {(job.dataset, job.plans) for job in jobs}}
    missing = {base for base, name in copies if read_plans(os.path.join(base, f"{name}.json")) is None}
    closed = [base for base in sorted(missing) if not os.access(base, os.W_OK | os.X_OK)]
    return [f"{base} cannot be written to, but the plans with the settings belong there" for base in closed]


def _write_plans(jobs: list[Job], experiments: list[Experiment]) -> None:
    by_dataset = {(experiment.dataset, experiment.plans): experiment for experiment in experiments}
    for job in {(job.dataset, job.plans): job for job in jobs}.values():
        training, own = _settings_of(by_dataset[job.dataset, job.base_plans], job.trainer, job.seed)
        write_plans_copy(
            job.dataset,
            plans_identifier=job.base_plans,
            name=job.plans,
            split=job.split,
            training=training,
            hyperparameters=own,
        )
