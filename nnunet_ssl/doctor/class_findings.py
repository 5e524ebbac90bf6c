"""Whether the labelled cases of every fold show every class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from nnunet_ssl.data.nnunet_folds import nnunet_folds
from nnunet_ssl.data.shown_classes import shown_in, unshown_lines
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, TrainVal
from nnunet_ssl.data.splits import Fold, Splits
from nnunet_ssl.doctor.dataset import Dataset
from nnunet_ssl.doctor.report import NOTE, OK, Finding, from_error
from nnunet_ssl.errors import SemiSupervisedError


def class_findings(dataset: Dataset, splits: Splits | None, known_cases: Collection[str]) -> list[Finding]:
    """Classes that no labelled case shows: in a fold, with the withheld cases that have them, or at all.

    Args:
        dataset: what is examined.
        splits: those of splits_ssl.json that can be read.
        known_cases: preprocessed labelled cases; none: nothing is said.
    """
    if not known_cases:
        return []
    try:
        shown = shown_in(dataset.base, dataset.plans, dataset.dataset_json)
    except SemiSupervisedError as error:
        return [from_error("classes", error)]
    findings = []
    if shown.nowhere:
        text = f"no labelled case of the dataset shows {', '.join(shown.nowhere)}"
        findings.append(Finding(NOTE, "classes", text, "label cases that show it, or take it out of dataset.json"))
    folds: dict[str, Sequence[Fold | TrainVal]] = {
        name: split.folds for name, split in (splits.splits if splits else {}).items()
    }
    with suppress(SemiSupervisedError):  # told where the folds are examined
        folds = {NNUNET_FOLDS: nnunet_folds(dataset.base, sorted(known_cases)), **folds}
    for name, own in folds.items():
        if lines := unshown_lines(own, shown):
            findings.append(Finding(NOTE, f"classes, {name}", "\n".join(lines), _remedy(dataset, name)))
    where = "in every fold " if folds else ""
    return findings or [Finding(OK, "classes", f"{where}the labelled cases show every class")]


def _remedy(dataset: Dataset, name: str) -> str:
    if name == NNUNET_FOLDS:
        return "label more cases that show it; until then that fold cannot learn it"
    return f"withhold others: nnunet_ssl splits -d {dataset.number} --labeled-from FILE, or another --seed with --names"
