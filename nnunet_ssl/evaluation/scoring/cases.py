"""Which cases are evaluated, and their pairs of files. What is missing or too much is a problem to be listed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2.paths import nnUNet_preprocessed

from nnunet_ssl.data.image_folder import IMAGE_ENDINGS
from nnunet_ssl.data.split_folds import load_folds
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.evaluation.scoring.dataset import Dataset, is_validation_folder
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.settings import BLOCK

CROSS_VALIDATION = "crossval_results_folds_"  # nnU-Net's folder of the predictions of several folds
REPEAT = "Repeat the validation (nnUNetv2_train ... --val), or name the cases with --cases."


@dataclass(frozen=True)
class Cases:
    """The pairs of files.

    Attributes:
        files: case id -> (reference, prediction), sorted; only complete pairs.
        problems: one line per case that is missing or too much.
        chosen: by what the cases were chosen, to be read after "cases: ".
    """

    files: dict[str, tuple[str, str]]
    problems: list[str]
    chosen: str


def pair_cases(reference: str, prediction: str, dataset: Dataset, cases: Sequence[str] | None = None) -> Cases:
    """Match predictions with reference labels by their names.

    Expected are the given cases; in the validation folder of a fold that fold's cases; else every reference case.

    Args:
        reference: folder of the reference labels.
        prediction: folder of the predictions.
        dataset: for the file ending, the plans and the split.
        cases: ids given by the user; predictions of other cases are ignored then.

    Raises:
        SemiSupervisedError: a folder that is missing or empty, or a fold whose cases nobody knows.
    """
    references, predictions = (_label_files(folder, dataset.file_ending) for folder in (reference, prediction))
    if not references:
        raise complain(
            f"{reference} holds no label file that ends in {dataset.file_ending}.",
            remedy="Give the folder of the reference labels with -ref, or their dataset.json with -djfile.",
        )
    if not predictions:
        below = os.path.join(prediction, "validation")
        hint = f"Did you mean {below}?" if _label_files(below, dataset.file_ending) else "Predict first."
        raise complain(f"{prediction} holds no prediction that ends in {dataset.file_ending}.", remedy=hint)
    if cases is not None:
        expected, chosen = list(dict.fromkeys(cases)), "those asked for"
        if not expected:
            raise complain("No case was asked for: the list of cases is empty.")
        surplus: set[str] = set()
    else:
        expected, chosen = _expected(prediction, dataset, sorted(references))
        if not expected:
            raise complain(f"There is no case to evaluate (cases: {chosen}).", remedy="Name the cases with --cases.")
        surplus = predictions - set(expected)
    problems = []
    for case in expected:
        if case not in references:
            problems.append(f"{case}: no reference label {case}{dataset.file_ending}")
        if case not in predictions:
            problems.append(f"{case}: no prediction {case}{dataset.file_ending}{_other_ending(prediction, case)}")
    for case in sorted(surplus):
        why = "it is not one of the expected cases" if case in references else "there is no reference label"
        problems.append(f"{case}: unexpected prediction {case}{dataset.file_ending}, {why}")
    folders = (reference, prediction)
    files = {
        case: (
            os.path.join(folders[0], case + dataset.file_ending),
            os.path.join(folders[1], case + dataset.file_ending),
        )
        for case in sorted(expected)
        if case in references and case in predictions
    }
    return Cases(files, problems, chosen)


def _label_files(folder: str, file_ending: str) -> set[str]:
    """Case ids. Hidden files are ignored, and so is whatever has another ending: our own results, plans, tables."""
    if not os.path.isdir(folder):
        return set()
    names = [n for n in os.listdir(folder) if n.endswith(file_ending) and not n.startswith(".")]
    return {n.removesuffix(file_ending) for n in names if os.path.isfile(os.path.join(folder, n))}


def _other_ending(folder: str, case: str) -> str:
    found = sorted(f for ending in IMAGE_ENDINGS if os.path.isfile(os.path.join(folder, f := case + ending)))
    found = [f for f in found if not f.endswith((".npz", ".b2nd"))]  # nnU-Net's probabilities, not labels
    return f", but {', '.join(found)}" if found else ""


def _expected(prediction: str, dataset: Dataset, references: list[str]) -> tuple[list[str], str]:
    """The expected cases and by what they are known."""
    validation = is_validation_folder(prediction)
    summary = os.path.join(prediction, "summary.json")
    crossval = os.path.basename(os.path.abspath(prediction)).startswith(CROSS_VALIDATION)
    if (validation or crossval) and os.path.isfile(summary):
        return _cases_of_summary(summary, dataset.file_ending), "those of nnU-Net's summary.json"
    if not validation:
        return references, "all reference labels"
    fold = os.path.basename(os.path.dirname(os.path.abspath(prediction))).removeprefix("fold_")
    if fold == "all":
        return references, "all reference labels, as of fold all"
    return _cases_of_split(prediction, dataset, fold)


def _cases_of_summary(path: str, file_ending: str) -> list[str]:
    """What nnU-Net evaluated at the end of the validation."""
    try:
        entries = read_json(path, dict)["metric_per_case"]
        names = [re.split(r"[/\\]", entry["prediction_file"])[-1] for entry in entries]
    except SemiSupervisedError as error:
        raise_failure(error)
        raise complain(str(error), remedy=REPEAT) from error
    except (AttributeError, KeyError, TypeError) as error:
        raise complain(
            f"{path} is not the summary that nnU-Net writes after validation ({type(error).__name__}: {error}).",
            remedy=REPEAT,
        ) from error
    return sorted(name.removesuffix(file_ending) for name in names)


def _cases_of_split(prediction: str, dataset: Dataset, fold: str) -> tuple[list[str], str]:
    """The validation cases by the split in use, where nnU-Net has not finished the validation."""
    plans = dataset.plans or {}
    model = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(prediction))))
    block = plans.get(BLOCK)
    split = block.get("split") if isinstance(block, dict) else None
    base = os.path.join(nnUNet_preprocessed.get() or "", str(plans.get("dataset_name")))
    if nnUNet_preprocessed.get() and fold.isdigit():
        if split is not None and _reads_splits(model.split("__")[0]):
            return sorted(load_fold(base, split, int(fold)).val), f'fold {fold} of split "{split}"'
        path = os.path.join(base, "splits_final.json")
        if os.path.isfile(path):
            folds = load_folds(path)
            if int(fold) < len(folds):
                return sorted(folds[int(fold)].val), f"fold {fold} of splits_final.json"
    raise complain(
        f"It is not known which cases should be in {prediction}: the validation has not finished (there is no "
        "summary.json), and plans.json of the model leads to no split for this fold in nnUNet_preprocessed.",
        remedy="Finish it with nnUNetv2_train ... --val, or name the cases with --cases.",
    )


def _reads_splits(trainer: str) -> bool:
    """Others take nnU-Net's own folds, whatever the plans say."""
    try:
        find_any_trainer(trainer)
    except SemiSupervisedError as error:
        raise_failure(error)
        return False
    return True
