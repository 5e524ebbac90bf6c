"""Jobs of a benchmark, and the record that each leaves in ``OUT/jobs/<job id>/record.json``."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure

VERSION = 1
MANIFEST_FILE = "manifest.json"
RUNNING, COMPLETE, FAILED, INTERRUPTED = "running", "complete", "failed", "interrupted"
WAITING = "waiting"  # of a job without a record


@dataclass(frozen=True)
class Job:
    """One training with what follows it.

    Attributes:
        dataset: name, DatasetXXX_Name.
        plans: name of the plans copy that carries split, seed and settings.
        base_plans: what it is a copy of.
        labeled, withheld: number of training cases of the fold with and without label.
        settings: the settings block of the plans copy.
        settings_sha256: hash of base plans, split and settings.
        test_images, test_labels: folders of the test set, or None.
        epochs: length of the training run; None in manifests of earlier versions.
    """

    dataset: str
    configuration: str
    plans: str
    base_plans: str
    trainer: str
    split: str
    labeled: int
    withheld: int
    fold: int
    seed: int
    settings: dict[str, Any]
    settings_sha256: str
    test_images: str | None = None
    test_labels: str | None = None
    epochs: int | None = None

    @property
    def id(self) -> str:
        return job_id(self.dataset, self.configuration, self.trainer, self.split, self.fold, self.seed)


def job_id(dataset: str, configuration: str, trainer: str, split: str, fold: int | str, seed: int | str) -> str:
    """Name of the job's folder."""
    return f"{dataset}__{configuration}__{trainer}__{split}__fold{fold}__seed{seed}"


# what stands under "job" in a record
DESCRIPTION = ("dataset", "configuration", "plans", "base_plans", "trainer", "split", "labeled", "withheld", "fold",
               "seed")  # fmt: skip


@dataclass
class Stage:
    """One command of a job.

    Attributes:
        name: train, predict or evaluate.
        command: its words.
        started: ISO 8601, UTC.
        exit_code: None while it runs, and for good when everything was killed meanwhile.
        seconds: None while it runs.
    """

    name: str
    command: list[str]
    started: str
    exit_code: int | None = None
    seconds: float | None = None


@dataclass
class Record:
    """State and figures of a job, over all its starts.

    Attributes:
        job: see DESCRIPTION.
        stages: every command that was run, also by starts that were interrupted.
        started: of the first start.
        seconds: of all stages.
        peak_memory_mb: largest sum of the resident memory (RSS) of the training and its worker processes; memory that
            processes share counts once for each.
        peak_gpu_memory_mb: the same on the GPU, as nvidia-smi reports it; None where that is not known.
        seconds_per_step: median over epochs of nnU-Net's own epoch time divided by its training steps.
        steps: training steps in all.
        host: name of the computer.
        test: folders of the test set, or None.
        results_folder: nnU-Net's fold_X.
        error: None, or the last lines of the log.
    """

    job: dict[str, Any]
    state: str
    device: str
    settings: dict[str, Any]
    settings_sha256: str
    test: dict[str, str] | None
    started: str
    results_folder: str
    versions: dict[str, str]
    git_revision: str | None
    host: str
    stages: list[Stage] = field(default_factory=list)
    seconds: float = 0.0
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None
    seconds_per_step: float | None = None
    steps: int | None = None
    error: str | None = None
    version: int = VERSION


def job_folder(output: str, job_id: str) -> str:
    """OUT/jobs/<job id>"""
    return os.path.join(output, "jobs", job_id)


def log_path(output: str, job_id: str) -> str:
    return os.path.join(job_folder(output, job_id), "log.txt")


def read_record(output: str, job_id: str) -> Record | None:
    """None where there is none, or none that can be read: the job then counts as not begun."""
    try:
        content = read_json(os.path.join(job_folder(output, job_id), "record.json"), dict)
        if content.get("version") != VERSION:
            return None
        stages = [Stage(**stage) for stage in content.pop("stages")]
        return Record(**content, stages=stages)
    except (SemiSupervisedError, TypeError, KeyError) as error:
        raise_failure(error)
        return None


def write_record(output: str, job_id: str, record: Record) -> None:
    """In one step: a reader sees the former record or this one."""
    write_json(os.path.join(job_folder(output, job_id), "record.json"), dataclasses.asdict(record))


def test_set(job: Job) -> dict[str, str] | None:
    """What a record says about the test set."""
    if job.test_images is None or job.test_labels is None:
        return None
    return {"images": job.test_images, "labels": job.test_labels}


def is_complete(output: str, job: Job) -> bool:
    """Whether the job was finished with these settings and its evaluation is there.

    The model is not asked for: checkpoints may be deleted to save space once they are evaluated.
    """
    record = read_record(output, job.id)
    if record is None or record.state != COMPLETE or record.settings_sha256 != job.settings_sha256:
        return False
    if record.test != test_set(job):
        return False
    folders = [job_folder(output, job.id)]
    if record.test is not None:
        folders.append(os.path.join(folders[0], "test"))
    names = ("evaluation.json", "evaluation.csv")
    return all(os.path.isfile(os.path.join(folder, name)) for folder in folders for name in names)


def write_manifest(output: str, manifest: dict[str, Any], jobs: list[Job]) -> None:
    """OUT/manifest.json: what was asked for, and the jobs it amounts to, so that a single one can be run later."""
    content = {"version": VERSION, "made_by": "nnunet_ssl benchmark", **manifest}
    described = [{"id": job.id, **dataclasses.asdict(job)} for job in jobs]
    write_json(os.path.join(output, MANIFEST_FILE), {**content, "jobs": described})


def read_benchmark(output: str) -> tuple[dict[str, Any], list[Job]]:
    """The manifest of an output folder and its jobs.

    Raises:
        SemiSupervisedError: there is none, or another program wrote it.
    """
    path = os.path.join(output, MANIFEST_FILE)
    if not os.path.isfile(path):
        raise complain(f"There is no benchmark in {output}: {path} does not exist.", remedy="See --help for a new one.")
    try:
        content = read_json(path, dict)
        jobs = [Job(**{key: value for key, value in job.items() if key != "id"}) for job in content["jobs"]]
        manifest = {"device": content["device"], "datasets": content["datasets"]}
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise complain(
            f"{path} was not written by this version of nnunet_ssl benchmark ({error!r}).",
            remedy="Give the whole command again with another folder, -o.",
        ) from error
    return manifest, jobs
