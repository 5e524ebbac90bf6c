"""The selection of a round: a label for every case of the pool, its scores, and which are kept.

Run as a process: python -m nnunet_ssl.selftrain.selection.choose OUT ROUND
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import write_json, write_whole
from nnunet_ssl.data.workers import Workers, usable_cores
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.selftrain.keys import SELECTION_TABLE
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.selection.case import Judged, Task, judge, volumes_of
from nnunet_ssl.selftrain.selection.decide import Decision, decide, refuse_too_few, unusual_volumes
from nnunet_ssl.selftrain.settings import CONFIDENCE, ENTROPY, IGNORE, STABILITY, read_settings
from nnunet_ssl.selftrain.student_dataset import ignore_value

VERSION = 1


def choose(run: Run, round_number: int, processes: int) -> None:
    """Write OUT/round_k/labels, selection.csv and, at last, selection.json.

    Raises:
        SemiSupervisedError: fewer cases are kept than asked for; selection.csv then tells the scores.
    """
    labels = run.labels_folder(round_number)
    shutil.rmtree(labels, ignore_errors=True)
    os.makedirs(labels)
    tasks = {case: (task_of(run, round_number, case),) for case in run.pool}
    known = sorted({case for fold in run.folds.values() for case in fold.labeled})
    reader, classes = run.plans["image_reader_writer"], run.labels.classes
    with Workers(max(1, min(processes, len(tasks)))) as workers:
        judged = workers.map(judge, tasks, "Labels and scores")
        of_labeled = {case: (run.files[case]["label"], reader, classes) for case in known}
        volumes = [*workers.map(volumes_of, of_labeled, "Volumes of the labelled cases").values()]
    scores = {case: found.score for case, found in judged.items()}
    decisions = decide(judged, run.settings, round_number)
    labeled = {kind.name: [found[kind.name] for found in volumes] for kind in classes}
    unusual = {case: unusual_volumes(found.volumes, labeled) for case, found in judged.items()}
    path = os.path.join(run.round_folder(round_number), SELECTION_TABLE)
    write_whole(path, table(judged, decisions, unusual).to_csv(index=False, lineterminator="\n").encode())
    refuse_too_few(decisions, scores, run.settings)
    write_json(run.selection_file(round_number), content(run, round_number, judged, decisions, unusual))
    kept = sum(decision.kept for decision in decisions.values())
    print(f"{kept} of {len(decisions)} cases kept: {path}")


def task_of(run: Run, round_number: int, case: str) -> Task:
    """Everything that one case needs."""
    settings, name = run.settings, case + run.ending
    ensemble = run.ensemble_folder(round_number)
    of_ensemble = settings.select in (CONFIDENCE, ENTROPY)
    earlier = settings.select == STABILITY and round_number > 1
    truth = settings.monitor_withheld_labels and case in run.withheld
    return Task(
        case,
        run.plans["image_reader_writer"],
        tuple(os.path.join(run.teacher_folder(round_number, j), name) for j in range(settings.n_teachers)),
        os.path.join(ensemble, name) if of_ensemble else None,
        os.path.join(ensemble, f"{case}.npz") if settings.needs_probabilities else None,
        os.path.join(run.labels_folder(round_number - 1), name) if earlier else None,
        run.files[case]["label"] if truth else None,
        os.path.join(run.labels_folder(round_number), name),
        run.labels.classes,
        tuple(channel_of(run, kind) for kind in run.labels.classes),
        settings.select,
        ignore_value(run) if settings.voxels == IGNORE else None,
        settings.voxel_confidence,
    )


def channel_of(run: Run, kind: EvaluatedClass) -> int:
    """Where nnU-Net's probabilities hold a class or region."""
    manager = PlansManager(run.plans).get_label_manager(run.dataset_json)
    if manager.has_regions:
        regions = [tuple(r) if isinstance(r, (list, tuple)) else (r,) for r in manager.foreground_regions]
        return regions.index(kind.values)
    return int(manager.all_labels.index(kind.values[0]))


def content(
    run: Run,
    round_number: int,
    judged: Mapping[str, Judged],
    decisions: Mapping[str, Decision],
    unusual: Mapping[str, list[str]],
) -> dict[str, Any]:
    """Content of selection.json. A person may change "kept" before the students are trained."""
    cases = [
        {
            "case": case,
            "kept": decisions[case].kept,
            "reason": decisions[case].reason,
            "score": found.score,
            "scores": found.scores,
            "volumes_ml": {name: round(volume, 4) for name, volume in found.volumes.items()},
            "unusual_volumes": unusual[case],
            "label_sha256": found.label_sha256,
        }
        for case, found in sorted(judged.items())
    ]
    return {"version": VERSION, "round": round_number, "select": run.settings.select, "cases": cases}


def table(
    judged: Mapping[str, Judged], decisions: Mapping[str, Decision], unusual: Mapping[str, list[str]]
) -> pd.DataFrame:
    """selection.csv: one row per case, the surest first."""
    rows = [
        {
            "case": case,
            "kept": decisions[case].kept,
            "reason": decisions[case].reason,
            "score": found.score,
            **{f"score_{name}": score for name, score in found.scores.items()},
            **{f"volume_ml_{name}": volume for name, volume in found.volumes.items()},
            "unusual_volumes": " ".join(unusual[case]),
            "differing": found.differing,
            "ignored": found.ignored,
            **{f"true_dice_{name}": score for name, score in found.true_dice.items()},
        }
        for case, found in judged.items()
    ]
    return pd.DataFrame(rows).sort_values(["score", "case"], ascending=[False, True], na_position="last")


def main() -> int:
    output, round_number = sys.argv[1], int(sys.argv[2])
    try:
        processes = min(usable_cores(), int(os.environ.get("nnUNet_def_n_proc", default_num_processes)))
        choose(Run(output, read_settings(output)), round_number, processes)
    except (SemiSupervisedError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
