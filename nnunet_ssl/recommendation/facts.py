"""What about a dataset decides which trainer suits it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.class_counts import count_labels
from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import dataset_id, labeled_cases, load_plans, preprocessed_base
from nnunet_ssl.data.image_folder import list_images
from nnunet_ssl.data.nnunet_folds import nnunet_folds
from nnunet_ssl.data.pool_remedies import IMAGES
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.data.unlabeled_store import unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.doctor.memory import gib_of_gpu
from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.recommendation.cpu_plans import cpu_patch
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.settings import BLOCK

FOLD = 0  # folds are of about the same size


@dataclass(frozen=True)
class Facts:
    """A dataset as far as the choice depends on it.

    Attributes:
        name: DatasetXXX_Name.
        configuration: nnU-Net's -c.
        dimensions: of its patches.
        labeled, unlabeled: number of cases; with a split those of a fold, without it all.
        classes: number of foreground classes or regions.
        rarest: share of the labelled foreground that the rarest class has; ``None``: one class, or regions.
        gpu: GiB of the first GPU; ``None``: there is none.
        unsupported: trainer -> why it refuses these data.
        raw: number of images without labels that are not preprocessed yet.
        fold: that can be trained: 0, or "all" where the labelled cases are too few for folds.
        cpu_patch: of a copy of the plans for a CPU, in voxels; ``None``: the plans' network is small enough.
    """

    name: str
    configuration: str
    dimensions: int
    labeled: int
    unlabeled: int
    classes: int
    rarest: float | None
    gpu: float | None
    unsupported: dict[str, str]
    raw: int = 0
    fold: str = str(FOLD)
    cpu_patch: tuple[int, ...] | None = None

    @property
    def number(self) -> int:
        """What nnU-Net's commands take after -d."""
        return dataset_id(self.name)


def facts_of(dataset: str, configuration: str | None, plans_name: str, split: str | None) -> Facts:
    """Look at a dataset that nnU-Net has preprocessed; no withheld label is read.

    Args:
        dataset: number or name.
        configuration: nnU-Net's -c; ``None``: 3d_fullres, or 2d where there is no 3D.
        plans_name: nnU-Net's -p.
        split: name in splits_ssl.json; ``None``: that of the plans, if they name one.

    Raises:
        SemiSupervisedError: no such dataset, plans, configuration or split, or no preprocessed case.
    """
    base = preprocessed_base(dataset)
    plans = load_plans(base, plans_name)
    dataset_json = read_dataset_json(os.path.join(base, "dataset.json"))
    manager = PlansManager(plans)
    known = manager.available_configurations
    configuration = configuration or next((name for name in ("3d_fullres", "2d") if name in known), known[0])
    if configuration not in known:
        raise complain(f"{plans_name} has no configuration {configuration}.", remedy=f"Choose from: {', '.join(known)}")
    chosen = manager.get_configuration(configuration)
    folder = os.path.join(base, chosen.data_identifier)
    cases = labeled_cases(base, plans)
    split = split or plans.get(BLOCK, {}).get("split")
    fold = load_fold(base, split, FOLD, cases) if split is not None else None
    labeled = cases if fold is None else fold.labeled
    labels = manager.get_label_manager(dataset_json)
    counts = {} if labels.has_regions else count_labels(folder, labeled)
    foreground = [counts.get(label, 0) for label in labels.foreground_labels] if counts else []
    done, raw = unlabeled_images(base, folder, dataset_json["file_ending"])
    return Facts(
        name=os.path.basename(base),
        configuration=configuration,
        dimensions=len(chosen.patch_size),
        labeled=len(labeled),
        unlabeled=(len(fold.unlabeled) if fold is not None else 0) + len(done | raw),
        classes=len(labels.foreground_regions if labels.has_regions else labels.foreground_labels),
        rarest=min(foreground) / max(sum(foreground), 1) if len(foreground) > 1 else None,
        gpu=gib_of_gpu(),
        unsupported=_refusals(plans, configuration, dataset_json),
        raw=len(raw - done),
        fold=str(FOLD) if fold is not None else _fold(base, cases),
        cpu_patch=cpu_patch(chosen.configuration),
    )


def _fold(base: str, cases: list[str]) -> str:
    """Fold 0 if a training without a split has it."""
    try:
        nnunet_folds(base, cases)
    except SemiSupervisedError:  # too few cases, or a splits_final.json that training refuses
        return "all"
    return str(FOLD)


def unlabeled_images(base: str, folder: str, ending: str) -> tuple[set[str], set[str]]:
    """Images without labels: those that are preprocessed, and those in imagesUn.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        folder: of the preprocessed labelled cases in it.
        ending: of the images' files.
    """
    done = set(unlabeled_identifiers(unlabeled_folder(folder)))
    raw = os.path.join(nnUNet_raw, os.path.basename(base), IMAGES) if nnUNet_raw.is_set() else ""
    return done, set(list_images(raw, ending).cases if os.path.isdir(raw) and os.listdir(raw) else ())


def _refusals(plans: dict, configuration: str, dataset_json: dict) -> dict[str, str]:
    found = {}
    for name in TRAINERS:
        trainer: Any = find_trainer(name)
        try:
            trainer.check_supported(plans, configuration, dataset_json)
        except NotImplementedError as error:
            found[name] = str(error)
    return found
