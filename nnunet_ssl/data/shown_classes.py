"""Classes that no labelled case of a fold shows: nothing teaches them, and nothing fails because of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.data.plans_source import data_identifiers
from nnunet_ssl.data.split_folds import TrainVal
from nnunet_ssl.data.splits import Fold
from nnunet_ssl.data.unlabeled_store import unlabeled_identifiers
from nnunet_ssl.errors import complain, some

LOCATIONS = "class_locations"  # nnU-Net's samples of voxels per class or region, in the properties of a case


def foreground_names(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> dict[Any, str]:
    """Foreground class or region, as nnU-Net keys it in the properties of a case -> its name in dataset.json."""
    manager = PlansManager(dict(plans)).get_label_manager(dict(dataset_json))
    names = {_key(value): str(name) for name, value in dataset_json["labels"].items()}
    foreground = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    return {_key(value): names[_key(value)] for value in foreground}


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def shown_classes(
    folder: str, cases: Collection[str], names: Mapping[Any, str], plans: Mapping[str, Any]
) -> dict[str, set[str]]:
    """Case -> names of the classes that its preprocessed label shows. No other case is opened.

    Args:
        folder: nnU-Net's preprocessed folder of a configuration.
        cases: identifiers in it.
        names: see :func:`foreground_names`.
        plans: with which it was preprocessed.

    Raises:
        SemiSupervisedError: properties that cannot be read, all of them.
    """
    shown: dict[str, set[str]] = {}
    damaged = []
    for case in sorted(cases):
        try:
            locations = load_pickle(os.path.join(folder, f"{case}.pkl"))[LOCATIONS]
            shown[case] = {names[key] for key, voxels in locations.items() if key in names and len(voxels)}
        except Exception as error:  # a damaged pickle fails in any way
            damaged.append(f"{case}.pkl: {type(error).__name__}: {error}")
    if damaged:
        raise complain(f"These files in {folder} cannot be read:", damaged, f"Run: {_command_for(folder, plans)}")
    return shown


def _command_for(folder: str, plans: Mapping[str, Any]) -> str:
    """The command that preprocesses the labelled cases of this folder again."""
    base, own = os.path.split(folder)
    configuration = next(name for name, identifier in data_identifiers(plans).items() if identifier == own)
    words = f"-d {dataset_id(base)} -c {configuration}"
    return f"nnUNetv2_preprocess {words} -plans_name {plans['plans_name']}"


@dataclass(frozen=True)
class Shown:
    """Which classes the labelled cases of a dataset show.

    Attributes:
        names: of the foreground classes or regions, as in dataset.json.
        of_case: labelled case -> names of those that it shows; empty: nothing is preprocessed.
    """

    names: list[str]
    of_case: dict[str, set[str]]

    @property
    def nowhere(self) -> list[str]:
        """Classes that no labelled case shows, whatever the fold."""
        return unshown(self.of_case, self.of_case, self.names) if self.of_case else []


def shown_in(base: str, plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> Shown:
    """What the labels in the finest preprocessed configuration show.

    Raises:
        SemiSupervisedError: see :func:`shown_classes`.
    """
    manager = PlansManager(dict(plans))
    names = foreground_names(plans, dataset_json)
    for configuration in sorted(manager.available_configurations, key=lambda name: (name != "3d_fullres", name)):
        identifier = manager.get_configuration(configuration).configuration.get("data_identifier")
        folder = os.path.join(base, identifier or "")
        if identifier and (cases := unlabeled_identifiers(folder)):
            return Shown([*names.values()], shown_classes(folder, cases, names, plans))
    return Shown([*names.values()], {})


def unshown(cases: Collection[str], shown: Mapping[str, set[str]], names: Collection[str]) -> list[str]:
    """Names of the classes that none of the cases shows."""
    return [name for name in names if not any(name in shown.get(case, ()) for case in cases)]


def unshown_lines(folds: Sequence[Fold | TrainVal], shown: Shown) -> list[str]:
    """One line per fold and class that its labelled cases do not show but others do, with those."""
    names = [name for name in shown.names if name not in shown.nowhere] if shown.of_case else []
    lines = []
    for index, fold in enumerate(folds):
        labeled, withheld = (fold.labeled, fold.unlabeled) if isinstance(fold, Fold) else (fold.train, [])
        for name in unshown(labeled, shown.of_case, names):
            lines.append(f"fold {index}: no labelled case shows {name}")
            for part, cases in (("withheld", withheld), ("validation", fold.val)):
                having = [case for case in cases if name in shown.of_case.get(case, ())]
                lines[-1] += f"; {part} cases that have it: {some(having)}" if having else ""
    return lines


def unlearnable(manager: PlansManager, dataset_json: Mapping[str, Any], training: Any, fold: int | str) -> list[str]:
    """What to warn of at the start of a training, from its labelled cases alone.

    Args:
        manager: of the training's plans.
        dataset_json: of the dataset.
        training: nnU-Net's dataset object of the labelled training cases.
        fold: of the training.
    """
    names = foreground_names(manager.plans, dataset_json)
    shown = shown_classes(training.source_folder, training.identifiers, names, manager.plans)
    missing = unshown(shown, shown, list(names.values()))
    if not missing:
        return []
    command = f"nnunet_ssl doctor -d {dataset_id(manager.dataset_name)} -p {manager.plans_name}"
    return [
        f"No labelled case of fold {fold} shows {', '.join(missing)}: nothing teaches it. Cases that have it: {command}"
    ]
