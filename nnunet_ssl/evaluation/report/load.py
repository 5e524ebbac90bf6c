"""Reading a benchmark folder: manifest, job records and evaluations."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from nnunet_ssl.data import text_files
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE, MANIFEST_FILE, RUNNING, job_id
from nnunet_ssl.evaluation.prediction_record import is_best
from nnunet_ssl.evaluation.scoring.definitions import COLUMNS
from nnunet_ssl.evaluation.scoring.results import read_rows
from nnunet_ssl.system.failures import raise_failure

VALIDATION, TEST = "validation", "test"
INCOMPLETE, NOT_STARTED = "incomplete", "not started"
JOB_KEYS = ("dataset", "configuration", "trainer", "split", "fold", "seed")


class Place(NamedTuple):
    """What the trainers of one table have in common, apart from the split. ``scope``: validation or test."""

    dataset: str
    configuration: str
    plans: str
    scope: str


@dataclass(frozen=True)
class Run:
    """One training run with its evaluations: a job of the benchmark.

    Attributes:
        name: the job's id.
        dataset, configuration, plans, trainer, split, fold, seed: what it is; ``plans`` are those before the split.
        labeled, withheld: training cases with and without label; None where the record does not say.
        state: complete, failed, interrupted, running, incomplete or "not started".
        reason: why it is not complete; empty if it is.
        record: everything else.
        evaluations: scope -> content of evaluation.json without the cases.
    """

    name: str
    dataset: str
    configuration: str
    plans: str
    trainer: str
    split: str
    fold: str
    seed: str
    labeled: int | None
    withheld: int | None
    state: str
    reason: str
    record: dict[str, Any]
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def problem(self) -> str:
        """Name, state and reason, where it is not complete."""
        return f"{self.name}: {self.state}, {self.reason}"

    @property
    def results_folder(self) -> Path | None:
        folder = self.record.get("results_folder")
        return Path(folder) if isinstance(folder, str) else None

    def is_best(self, scope: str) -> bool:
        """Whether its checkpoint was chosen on the validation cases, as the settings of its plans may say."""
        predicted = self.evaluations.get(scope, {}).get("predicted")
        return isinstance(predicted, dict) and is_best(predicted)

    def measured(self, key: str) -> float | None:
        """A number of the record, None where it was not measured."""
        value = self.record.get(key)
        return float(value) if isinstance(value, (int, float)) else None


@dataclass(frozen=True)
class Benchmark:
    """Content of a benchmark folder.

    Attributes:
        manifest: as resolved by `nnunet_ssl benchmark`.
        runs: complete or not, in the order of their names.
        values: one row per job, scope, case and class: the columns of evaluation.csv and job, scope, dataset,
            configuration, plans, trainer, split, fold, seed.
        left_out: names of jobs that the manifest does not have any more.
    """

    manifest: dict[str, Any]
    runs: list[Run]
    values: pd.DataFrame
    left_out: list[str]


def load_benchmark(folder: str) -> Benchmark:
    """Read everything that `nnunet_ssl benchmark -o FOLDER` left. Jobs that are not complete are kept with the reason.

    Raises:
        SemiSupervisedError: no benchmark folder, no job in it, or evaluations in different units.
    """
    root = Path(folder)
    manifest = _manifest(root / MANIFEST_FILE)
    records = {path.parent.name: read_json(path) for path in sorted((root / "jobs").glob("*/record.json"))}
    planned = {
        job_id(*(str(entry.get(key)) for key in JOB_KEYS)): entry
        for entry in manifest.get("jobs", [])
        if isinstance(entry, dict)
    }
    if not records and not planned:
        raise complain(
            f"{folder} holds no benchmark: there is no job in its manifest.json, and no jobs/*/record.json.",
            remedy="Give the folder that `nnunet_ssl benchmark ... -o FOLDER` wrote.",
        )
    runs, tables = [], []
    for name in sorted(planned or records):
        run, rows = _read_run(root / "jobs" / name, records.get(name), planned.get(name))
        runs.append(run)
        tables += rows
    _check_units(runs)
    columns = ["job", "scope", "plans", *JOB_KEYS, *COLUMNS]
    values = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
    return Benchmark(manifest, runs, values, sorted(records.keys() - planned.keys()) if planned else [])


def _manifest(path: Path) -> dict[str, Any]:
    """Empty where there is none; the records alone do then."""
    manifest: dict[str, Any] = text_files.read_json(path, dict) if os.path.lexists(path) else {}
    if not isinstance(manifest.get("jobs", []), list) or not isinstance(manifest.get("datasets", []), list):
        raise complain(
            f'{path} was not written by nnunet_ssl benchmark: "jobs" and "datasets" must be lists.',
            remedy="Put it back as the benchmark wrote it, or delete it: the jobs' records are enough for a report.",
        )
    return manifest


def _read_run(
    folder: Path, record: dict[str, Any] | None, planned: dict[str, Any] | None
) -> tuple[Run, list[pd.DataFrame]]:
    """A training run and its evaluations, which are empty unless it is complete.

    Args:
        record: None where there is none, empty where it is not readable.
        planned: its entry in the manifest, if there is one.
    """
    state, reason = _state(record, planned)
    what: dict[str, Any] = planned or (record or {}).get("job") or _what_the_name_says(folder.name)
    identity: dict[str, Any] = {key: str(what.get(key)) for key in JOB_KEYS} | {"plans": str(what.get("base_plans"))}
    evaluations: dict[str, dict[str, Any]] = {}
    tables: list[pd.DataFrame] = []
    if state == COMPLETE:
        for scope, place in ((VALIDATION, folder), (TEST, folder / "test")):
            file = place / "evaluation.csv"
            if scope == TEST and not file.exists():
                continue
            try:
                rows, content = read_rows(str(file)), text_files.read_json(file.with_suffix(".json"), dict)
            except SemiSupervisedError as error:
                state, reason, tables = INCOMPLETE, f"no usable evaluation of the {scope} cases: {error}", []
                break
            evaluations[scope] = {k: v for k, v in content.items() if k != "cases"}
            tables.append(rows.assign(job=folder.name, scope=scope, **identity))
    run = Run(
        name=folder.name,
        **identity,
        labeled=what.get("labeled"),
        withheld=what.get("withheld"),
        state=state,
        reason=" ".join(reason.split()),
        record=record or {},
        evaluations=evaluations,
    )
    return run, tables


def _what_the_name_says(name: str) -> dict[str, Any]:
    """Of a job whose record is damaged and that no manifest describes."""
    dataset, configuration, trainer, split, fold, seed = [*name.split("__"), *6 * ["unknown"]][:6]
    what = {"dataset": dataset, "configuration": configuration, "trainer": trainer, "split": split}
    return {**what, "base_plans": "unknown", "fold": fold.removeprefix("fold"), "seed": seed.removeprefix("seed")}


def _state(record: dict[str, Any] | None, planned: dict[str, Any] | None) -> tuple[str, str]:
    """State, and the reason unless it is complete: the stage and the last line of its error."""
    if record is None:
        return NOT_STARTED, "start the benchmark again"
    state = record.get("state")
    if not isinstance(state, str) or not isinstance(record.get("job"), dict):
        return INCOMPLETE, "its record.json is not readable; start the benchmark again"
    if planned is not None and planned.get("settings_sha256") != record.get("settings_sha256"):
        return (
            INCOMPLETE,
            "its result was made with settings other than the manifest's; start the benchmark again",
        )
    if state == COMPLETE:
        return state, ""
    failed = [s["name"] for s in record.get("stages", []) if s.get("exit_code")]
    lines = [line.strip() for line in str(record.get("error") or "").splitlines() if line.strip()]
    words = [f"in stage {failed[-1]}"] if failed else []
    if state == RUNNING:
        words.append("still running, or killed before it could say so; start the benchmark again")
    return state, ": ".join([*words, *lines[-1:]]) or "no reason was recorded; see its log.txt"


def _check_units(runs: Iterable[Run]) -> None:
    found: dict[tuple[str, str, Any, Any], list[str]] = {}
    for run in runs:
        for scope, evaluation in run.evaluations.items():
            key = (run.dataset, scope, evaluation.get("unit"), evaluation.get("tolerance"))
            found.setdefault(key, []).append(run.name)
    places = [key[:2] for key in found]
    problems = [
        f"{dataset}, {scope} cases: unit {unit}, tolerance {tolerance}: {', '.join(names)}"
        for (dataset, scope, unit, tolerance), names in found.items()
        if places.count((dataset, scope)) > 1
    ]
    if problems:
        raise complain(
            "Jobs were evaluated in different ways and cannot share a table:",
            problems,
            "Delete the evaluation.* files of one kind and start the benchmark again.",
        )


def read_json(path: Path) -> dict[str, Any]:
    """Content of a JSON object, empty where there is none that can be read."""
    try:
        content: dict[str, Any] = text_files.read_json(path, dict)
    except SemiSupervisedError as error:
        raise_failure(error)
        return {}
    return content
