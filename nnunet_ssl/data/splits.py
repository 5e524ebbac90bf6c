"""splits_ssl.json: which training cases of a semi-supervised run keep their label. Reading, verifying, writing.

    {"version": 1, "dataset": "Dataset004_Hippocampus", "sha256": "...", "groups": {"case": "subject"},
     "splits": {"l10": {"fraction": 0.1, "seed": 0, "folds": [{"labeled": [...], "unlabeled": [...], "val": [...]}]}}}

``sha256`` is the hash of everything else in the file, as JSON with sorted keys and no white space. nnU-Net's own
splits_final.json is another module's, see nnunet_folds.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from nnunet_ssl.data.fold_rules import PARTS, Fold, fold_problems, fold_remedy
from nnunet_ssl.data.folders import dataset_id, write_json
from nnunet_ssl.data.split_folds import fold_number_problem
from nnunet_ssl.data.split_requests import splits_command
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.failures import raise_failure

SPLITS_FILE = "splits_ssl.json"
LOCK_FILE = ".splits_ssl.lock"
PATIENCE = 60  # seconds to wait for another writer, who needs fractions of one
VERSION = 1


@dataclass(frozen=True)
class Split:
    """One named split.

    Attributes:
        fraction: labelled share of the training cases as asked for; for a count or a list, the share it amounts to.
        seed: of the order in which cases become labelled; None where the labelled cases were given as a list.
        folds: in nnU-Net's order.
        count: number of labelled cases as asked for, None otherwise.
    """

    fraction: float
    seed: int | None
    folds: list[Fold]
    count: int | None = None


@dataclass(frozen=True)
class Splits:
    """Content of splits_ssl.json. ``groups`` maps every case to its subject, or is empty."""

    dataset: str
    groups: dict[str, str]
    splits: dict[str, Split]


def splits_path(preprocessed_dataset_base: str) -> str:
    """Path of splits_ssl.json in nnUNet_preprocessed/DatasetXXX_Name."""
    return os.path.join(preprocessed_dataset_base, SPLITS_FILE)


def dataset_name(preprocessed_dataset_base: str) -> str:
    return os.path.basename(os.path.normpath(preprocessed_dataset_base))


def load_fold(
    preprocessed_dataset_base: str, split: str, fold: int | str, known_cases: Collection[str] | None = None
) -> Fold:
    """One fold of a split, verified.

    Args:
        preprocessed_dataset_base: nnUNet_preprocessed/DatasetXXX_Name.
        split: name of the split.
        fold: index of the fold. nnU-Net's "all" is refused: it has no validation cases to keep out of the pool.
        known_cases: identifiers of the preprocessed labelled cases; the fold may name no other.

    Raises:
        SemiSupervisedError: no file, edited or damaged file, unknown split, fold or case, a case in two parts,
            a divided group, no labelled case.
    """
    splits = read_splits(preprocessed_dataset_base, [split])
    path = splits_path(preprocessed_dataset_base)
    chosen = find_split(splits, split, path)
    if missing := fold_number_problem(fold, len(chosen.folds)):
        raise complain(f'Split "{split}" of {path} has {missing}', remedy="Choose one of these.")
    result = chosen.folds[int(fold)]
    problems = fold_problems(result, splits.groups, known_cases)
    if problems:
        raise complain(
            f'Fold {fold} of split "{split}" in {path} cannot be trained with:',
            problems,
            fold_remedy(problems, dataset_id(splits.dataset), [split]),
        )
    return result


def find_split(splits: Splits, name: str, path: str) -> Split:
    """The split of that name; the error lists the names there are."""
    if name not in splits.splits:
        available, choose = ", ".join(splits.splits) or "none", "Use one of these, or add" if splits.splits else "Add"
        raise complain(
            f'{path} has no split "{name}". Available: {available}.',
            remedy=f"{choose} it with:\n{_command(splits.dataset, [name])}",
        )
    return splits.splits[name]


def stored_splits(preprocessed_dataset_base: str) -> Splits:
    """:func:`read_splits`, or none at all where there is no file yet."""
    if os.path.exists(splits_path(preprocessed_dataset_base)):
        return read_splits(preprocessed_dataset_base)
    return Splits(dataset_name(preprocessed_dataset_base), {}, {})


def read_splits(preprocessed_dataset_base: str, wanted: Collection[str] = ()) -> Splits:
    """Read splits_ssl.json. Verifies version, dataset, hash and structure, not the folds' content.

    Args:
        preprocessed_dataset_base: nnUNet_preprocessed/DatasetXXX_Name.
        wanted: names of splits, for the command that the error advises.

    Raises:
        SemiSupervisedError: see above, and if the file is absent.
    """
    path, dataset = splits_path(preprocessed_dataset_base), dataset_name(preprocessed_dataset_base)
    remedy = f"Restore the file, or delete it and make the splits again:\n{_anew(path, dataset, wanted)}"
    if not os.path.isfile(path):
        raise complain(f"There are no splits yet: {path} does not exist.", remedy=f"Run:\n{_command(dataset, wanted)}")
    try:
        content = read_json(path)
    except SemiSupervisedError as error:
        raise_failure(error)
        raise complain(str(error), remedy=remedy) from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise complain(
            f"{path} has version {found!r}; this nnunet-ssl reads version {VERSION}.",
            remedy=remedy,
        )
    if content.get("dataset") != dataset:
        raise complain(f"{path} belongs to {content.get('dataset')!r}, not to {dataset}.", remedy=remedy)
    if content.get("sha256") != content_hash(content):
        raise complain(
            f"{path} was edited by hand or is damaged: its content does not fit its sha256.",
            remedy=remedy,
        )
    return _from_json(content, path, remedy)


@contextmanager
def locked_splits(preprocessed_dataset_base: str) -> Iterator[None]:
    """Keep splits_ssl.json to oneself from reading to writing; two commands at once would lose the splits of one.

    Raises:
        SemiSupervisedError: another command holds it for a minute.
    """
    try:
        with FileLock(os.path.join(preprocessed_dataset_base, LOCK_FILE), timeout=PATIENCE):
            yield
    except Timeout as error:
        raise complain(
            f"Another `nnunet_ssl splits` has been writing {splits_path(preprocessed_dataset_base)} for {PATIENCE} s.",
            remedy="Wait for it, or end it if it hangs.",
        ) from error


def write_splits(preprocessed_dataset_base: str, splits: Splits) -> str:
    """Verify and write splits_ssl.json in one step (temporary file, then rename). Returns its path.

    Raises:
        SemiSupervisedError: a fold is unusable, see :func:`fold_problems`; nothing is written then.
    """
    problems = [
        f'split "{name}", fold {index}: {problem}'
        for name, split in splits.splits.items()
        for index, fold in enumerate(split.folds)
        for problem in fold_problems(fold, splits.groups)
    ]
    if problems:
        raise complain("The splits were not written:", problems)
    content = {"version": VERSION, "dataset": splits.dataset, "sha256": "", "groups": splits.groups}
    content["splits"] = {name: split_to_json(split) for name, split in splits.splits.items()}
    content["sha256"] = content_hash(content)
    path = splits_path(preprocessed_dataset_base)
    write_json(path, content)
    return path


def content_hash(content: Mapping[str, Any]) -> str:
    """Hash of a splits_ssl.json without its "sha256", independent of layout and order of keys."""
    rest = {key: value for key, value in content.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def split_to_json(split: Split) -> dict[str, Any]:
    """The dictionary that stands in the file for one split."""
    content: dict[str, Any] = {"fraction": split.fraction, "seed": split.seed}
    if split.count is not None:
        content["count"] = split.count
    content["folds"] = [{part: getattr(fold, part) for part in PARTS} for fold in split.folds]
    return content


def _command(dataset: str, names: Iterable[str] = ()) -> str:
    return f"  {splits_command(dataset_id(dataset), names)}"


def _anew(path: str, dataset: str, names: Iterable[str] = ()) -> str:
    """The damaged file would be refused by the second command, too."""
    return f"  {shlex.join(['rm', path])}\n{_command(dataset, names)}"


def _from_json(content: dict[str, Any], path: str, remedy: str) -> Splits:
    problems = []
    groups, named = content.get("groups"), content.get("splits")
    if not isinstance(groups, dict) or not all(isinstance(group, str) for group in groups.values()):
        problems.append('"groups" must map case identifiers to subjects')
    splits: dict[str, Split] = {}
    if not isinstance(named, dict):
        problems.append('"splits" must map names to splits')
    else:
        for name, entry in named.items():
            try:
                splits[name] = _split_from_json(entry)
            except SemiSupervisedError as error:
                problems.append(f'split "{name}": {error}')
    if problems:
        raise complain(f"{path} does not have the format of version {VERSION}:", problems, remedy)
    return Splits(content["dataset"], dict(content["groups"]), splits)


def _split_from_json(entry: Any) -> Split:
    if not isinstance(entry, dict) or not isinstance(entry.get("folds"), list):
        raise SemiSupervisedError('"folds" must be a list')
    folds = []
    for index, fold in enumerate(entry["folds"]):
        parts: dict[str, Any] = {part: fold.get(part) if isinstance(fold, dict) else None for part in PARTS}
        if not all(isinstance(part, list) and all(isinstance(case, str) for case in part) for part in parts.values()):
            raise SemiSupervisedError(f"fold {index} needs the lists {', '.join(PARTS)} of case identifiers")
        folds.append(Fold(**parts))
    numbers = [entry.get(key) for key in ("fraction", "seed", "count")]
    if not isinstance(numbers[0], (int, float)) or not all(n is None or isinstance(n, int) for n in numbers[1:]):
        raise SemiSupervisedError('"fraction" must be a number, "seed" and "count" whole numbers')
    return Split(float(numbers[0]), numbers[1], folds, numbers[2])
