"""The dataset.json and plans.json that belong to a pair of folders, and what nnU-Net makes of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.imageio.reader_writer_registry import (
    LIST_OF_IO_CLASSES,
    determine_reader_writer_from_dataset_json,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.file_damage import has_unicode_name
from nnunet_ssl.data.image_folder import NNUNET_ENDINGS
from nnunet_ssl.data.quiet import captured_output
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass, Labels

COMPARED = ("labels", "regions_class_order", "file_ending")


@dataclass(frozen=True)
class Dataset:
    """What the evaluation needs to know of a dataset.

    Attributes:
        path: of dataset.json, or where it was looked for.
        content: of dataset.json.
        plans: content of the plans.json of the predictions, or None.
        file_ending: of label files, with the dot.
        labels: the classes; None without dataset.json: those that the files hold.
    """

    path: str
    content: dict[str, Any]
    plans: dict[str, Any] | None
    file_ending: str
    labels: Labels | None


def find_dataset(reference: str, prediction: str, dataset_json: str | None = None) -> Dataset:
    """Look where nnU-Net puts these files: with predictions, in the model's folder above a fold, beside the labels.

    Args:
        reference: folder of the reference labels.
        prediction: folder of the predictions.
        dataset_json: path given by the user; nothing else is looked at then, but for plans.

    Returns:
        without labels where there is no dataset.json; the file ending is that of the label files then.

    Raises:
        SemiSupervisedError: an unusable dataset.json, two that differ in the labels, or none and no label files.
    """
    model = os.path.join(prediction, os.pardir, os.pardir)  # of PREDICTIONS = model/fold_X/validation
    folders = [prediction, model] if is_validation_folder(prediction) else [prediction]
    beside = [path for folder in folders if os.path.lexists(path := os.path.join(folder, "plans.json"))]
    plans = next((p for path in beside if "configurations" in (p := read_json(path, dict))), None)
    if dataset_json is not None:
        candidates = [dataset_json]
    else:
        above = os.path.join(reference, os.pardir)  # of nnUNet_raw/DATASET/labelsTr
        paths = [os.path.normpath(os.path.join(f, "dataset.json")) for f in [*folders, reference, above]]
        candidates = [path for path in dict.fromkeys(paths) if os.path.isfile(path)]
        if not candidates:
            found = _common_ending(reference, prediction, paths)
            return Dataset("dataset.json", {"file_ending": found}, plans, found, None)
    contents = {path: read_json(path, dict) for path in candidates}
    path, content = next(iter(contents.items()))
    different = [p for p, other in contents.items() if any(other.get(k) != content.get(k) for k in COMPARED)]
    if different:
        raise complain(
            "Predictions and reference labels come with different datasets: labels, regions_class_order or file_ending "
            f"of {path} differ from",
            different,
            "Choose the one that is right for both with -djfile.",
        )
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise complain(f'{path} has no usable "file_ending": {ending!r}.', remedy='It is, for instance, ".nii.gz".')
    return Dataset(path, content, plans, ending, read_labels(content, plans, path))


def _common_ending(reference: str, prediction: str, looked_for: Sequence[str]) -> str:
    """The ending of most files that both folders hold under the same name."""
    names = [{n for n in os.listdir(folder) if not n.startswith(".")} for folder in (reference, prediction)]
    counts = {ending: sum(n.endswith(ending) for n in names[0] & names[1]) for ending in NNUNET_ENDINGS}
    best = max(sorted(counts), key=lambda ending: (counts[ending], len(ending)))  # .nii.gz rather than .gz
    if not counts[best]:
        raise complain(
            f"{reference} and {prediction} have no label file of the same name, and no dataset.json was found, which "
            "says how they end. Looked for:",
            looked_for,
            "Give both files of a case the same name; with a dataset.json (-djfile) the missing ones are listed.",
        )
    return best


def is_validation_folder(prediction: str) -> bool:
    """Whether this is where nnU-Net puts the predictions of a fold's validation cases: model/fold_X/validation."""
    parent, name = os.path.split(os.path.abspath(prediction))
    model, fold = os.path.split(parent)
    marked = os.path.isfile(os.path.join(model, "plans.json")) or os.path.isfile(os.path.join(model, "dataset.json"))
    return name == "validation" and fold.startswith("fold_") and marked


def read_labels(dataset_json: Mapping[str, Any], plans: Mapping[str, Any] | None, source: str) -> Labels:
    """The classes that nnU-Net evaluates for this dataset.

    Args:
        dataset_json: content of dataset.json.
        plans: content of plans.json, which may name a label manager of its own; None for nnU-Net's usual one.
        source: path of dataset.json, for the message.

    Raises:
        SemiSupervisedError: the labels are missing or nnU-Net refuses them.
    """
    try:
        if plans is not None and "label_manager" in plans:
            manager = PlansManager(dict(plans)).get_label_manager(dict(dataset_json))
        else:
            manager = LabelManager(dict(dataset_json["labels"]), dataset_json.get("regions_class_order"))
        foreground = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        wanted = {_values(value) for value in foreground}
        named = {name: _values(value) for name, value in dataset_json["labels"].items() if name != "ignore"}
        classes = tuple(EvaluatedClass(name, values) for name, values in named.items() if values in wanted)
        known, ignore = frozenset(map(int, manager.all_labels)), manager.ignore_label
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        text = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise complain(
            f"The labels in {source} cannot be used.",
            [text],
            'They must be as nnU-Net v2 writes them: "labels": {"background": 0, "name": 1, ...}',
        ) from error
    if not classes:
        raise complain(f"{source} names no class besides the background; there is nothing to evaluate.")
    return Labels(classes, known, ignore)


def _values(label_or_region: Any) -> tuple[int, ...]:
    values = label_or_region if isinstance(label_or_region, (list, tuple)) else (label_or_region,)
    return tuple(dict.fromkeys(int(value) for value in values))


def find_reader(dataset: Dataset, examples: Sequence[str]) -> str:
    """Name of nnU-Net's reader class: the one of the plans, else the first that can read an example.

    Args:
        dataset: of the labels.
        examples: label files; damaged ones are passed over.

    Raises:
        SemiSupervisedError: nnU-Net has no reader for this file ending.
    """
    named = (dataset.plans or {}).get("image_reader_writer")
    endings = {e for reader in LIST_OF_IO_CLASSES for e in reader.supported_file_endings}
    with captured_output():  # nnU-Net prints what it tries, and tracebacks
        if isinstance(named, str):
            try:
                reader = recursive_find_reader_writer_by_name(named)
                if dataset.file_ending.lower() in reader.supported_file_endings:
                    return str(reader.__name__)
            except RuntimeError:
                pass  # the plans of another version; the files decide
        for example in [*filter(has_unicode_name, examples), None]:
            try:
                return str(determine_reader_writer_from_dataset_json(dataset.content, example, verbose=False).__name__)
            except RuntimeError:
                continue
    raise complain(
        f'{dataset.path}: nnU-Net reads no files that end in "{dataset.file_ending}".',
        remedy=f"It reads {', '.join(sorted(endings))}.",
    )
