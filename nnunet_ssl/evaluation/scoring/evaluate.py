"""Evaluate a folder of predictions against a folder of reference labels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from nnunetv2.configuration import default_num_processes

from nnunet_ssl.data.folders import existing_part
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.prediction_record import RECORD, describe
from nnunet_ssl.evaluation.scoring.case import CaseResult, Rules
from nnunet_ssl.evaluation.scoring.cases import pair_cases
from nnunet_ssl.evaluation.scoring.conventions import CONVENTIONS
from nnunet_ssl.evaluation.scoring.dataset import find_dataset, find_reader
from nnunet_ssl.evaluation.scoring.found_labels import find_labels
from nnunet_ssl.evaluation.scoring.results import Evaluation
from nnunet_ssl.evaluation.scoring.schedule import score_cases

TOLERANCE = 1.0
SHOWN = 10  # cases that a note names


def evaluate_folder(
    reference: str,
    prediction: str,
    output: str | None = None,
    *,
    voxel: bool = False,
    convention: str | None = None,
    tolerance: float = TOLERANCE,
    processes: int = default_num_processes,
    cases: Sequence[str] | None = None,
    dataset_json: str | None = None,
) -> Evaluation:
    """Score every expected case and write evaluation.json, evaluation.csv and evaluation.md.

    Args:
        reference: folder of the reference labels, such as nnUNet_raw/DATASET/labelsTr.
        prediction: folder of the predictions, such as model/fold_0/validation or the output of nnUNetv2_predict.
        output: folder of the results; default: that of the predictions. Made if it does not exist.
        voxel: distances and tolerance in voxels, as if the spacing were 1, in place of mm.
        convention: name of the way in which a publication scores, see ``CONVENTIONS``; in voxels.
        tolerance: of the NSD, in mm or voxels.
        processes: at most so many, never more than there are cases or cores; small jobs stay in this process.
        cases: ids of the cases to evaluate; default: those of the fold, or all reference labels.
        dataset_json: path; default: looked for with the predictions and beside the labels. Where there is none, the
            values that the files hold are the classes, and a note says so.

    Raises:
        SemiSupervisedError: folders, dataset.json or arguments that cannot be used; or predictions that are missing,
            unexpected, unreadable, on another grid or with unknown labels, all of them listed. Nothing is written.
    """
    output = prediction if output is None else output
    chosen = None if convention is None else CONVENTIONS[convention]
    voxel = voxel or chosen is not None
    _check_arguments(reference, prediction, output, tolerance, processes)
    dataset = find_dataset(reference, prediction, dataset_json)
    pairs = pair_cases(reference, prediction, dataset, cases)
    results: dict[str, CaseResult] = {}
    notes: list[str] = []
    if pairs.files:
        reader, labels = find_reader(dataset, [file for file, _ in pairs.files.values()]), dataset.labels
        if labels is None:
            labels, note = find_labels(pairs.files, reader, processes)
            notes.append(note)
        rules = Rules(reader, labels, voxel, float(tolerance), chosen)
        results = score_cases(pairs.files, rules, processes, score=not pairs.problems)
    problems = [*pairs.problems, *(problem for result in results.values() for problem in result.problems)]
    if problems:
        raise complain(
            f"The predictions in {prediction} cannot be evaluated against {reference} (cases: {pairs.chosen}); "
            "nothing was written:",
            problems,
            "Correct these files, or name the cases to evaluate with --cases.",
        )
    unit, about_spacing = _unit(results, voxel)
    predicted = _how_predicted(prediction)
    notes += [*about_spacing, *([] if predicted is None else [f"Predicted by {describe(predicted)}."])]
    rows = [row for result in results.values() for row in result.rows]
    folders = os.path.abspath(reference), os.path.abspath(prediction)
    evaluation = Evaluation(*folders, unit, float(tolerance), rows, notes, convention, predicted)
    evaluation.write(output)
    return evaluation


def _check_arguments(reference: str, prediction: str, output: str, tolerance: float, processes: int) -> None:
    problems = [f"{folder} is not a folder" for folder in (reference, prediction) if not os.path.isdir(folder)]
    if not (math.isfinite(tolerance) and tolerance >= 0):
        problems.append(f"the tolerance must be a number of at least 0, got {tolerance}")
    if processes < 1:
        problems.append(f"the number of processes must be at least 1, got {processes}")
    above = existing_part(output)
    if not os.path.isdir(above):
        problems.append(f"the results cannot be written to {output}: {above} is not a folder")
    elif not os.access(above, os.W_OK):
        problems.append(f"the results cannot be written to {output}: {above} is not writable; give a folder with -o")
    if problems:
        raise complain(
            "This cannot be evaluated:", problems, "Correct these options; what they take: nnunet_ssl evaluate --help"
        )


def _how_predicted(folder: str) -> dict[str, Any] | None:
    """What `nnunet_ssl predict-as-paper` recorded beside the predictions."""
    path = os.path.join(folder, RECORD)
    return read_json(path, dict) if os.path.isfile(path) else None


def _unit(results: dict[str, CaseResult], voxel: bool) -> tuple[str, list[str]]:
    """Unit of the distances, and what to say about it. Files that tell no spacing are measured in voxels."""
    unknown = [case for case, result in results.items() if not result.has_spacing]
    if voxel or not unknown:
        return "voxel" if voxel else "mm", []
    if len(unknown) == len(results):
        return "voxel", ["The reference files do not state a spacing, so distances and tolerance are in voxels."]
    named = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
    return "mm", [f"No spacing is known for {named}; 1 mm was assumed, as nnU-Net does."]
