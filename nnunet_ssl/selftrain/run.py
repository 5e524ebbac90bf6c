"""A self-training with the facts of its dataset: folds, cases, files, and where everything is written."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.fold_rules import Fold
from nnunet_ssl.data.folders import labeled_cases, load_plans, preprocessed_base
from nnunet_ssl.data.image_folder import ImageFolder, list_images
from nnunet_ssl.data.nnunet_folds import nnunet_folds
from nnunet_ssl.data.pool_remedies import IMAGES
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.scoring.dataset import read_labels
from nnunet_ssl.evaluation.scoring.labels import Labels
from nnunet_ssl.selftrain.settings import CHECKPOINTS, FOLDS, SelfTraining
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.system.hashes import hash_of

LABELED_SPLIT = "all_labels"  # in names of plans, where no split is named


class Run:
    """Read where it is first needed; nothing is written.

    Args:
        output: OUT.
        settings: of OUT/selftrain.json, or on their way there.
    """

    def __init__(self, output: str, settings: SelfTraining) -> None:
        self.output, self.settings = os.path.abspath(output), settings

    # ---- the dataset

    @cached_property
    def base(self) -> str:
        """nnUNet_preprocessed/DatasetXXX_Name"""
        return preprocessed_base(self.settings.dataset)

    @property
    def raw(self) -> str:
        """nnUNet_raw/DatasetXXX_Name"""
        return os.path.join(nnUNet_raw, self.settings.dataset)

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        return read_dataset_json(os.path.join(self.base, "dataset.json"))

    @property
    def ending(self) -> str:
        return str(self.dataset_json["file_ending"])

    @cached_property
    def plans(self) -> dict[str, Any]:
        return load_plans(self.base, self.settings.plans)

    @cached_property
    def student_plans(self) -> dict[str, Any]:
        return load_plans(self.base, self.settings.student_plans)

    @cached_property
    def labels(self) -> Labels:
        return read_labels(self.dataset_json, self.plans, os.path.join(self.base, "dataset.json"))

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Case of imagesTr -> {"images": [...], "label": ...}, as nnU-Net finds them."""
        content = read_dataset_json(os.path.join(self.raw, "dataset.json"))
        if "dataset" in content:
            found: dict[str, dict[str, Any]] = get_filenames_of_train_images_and_targets(self.raw, content)
            return found
        # of folders nnU-Net's function makes the lists in twelve processes
        images = self._images("imagesTr").cases
        labels = os.path.join(self.raw, "labelsTr")
        return {c: {"images": files, "label": os.path.join(labels, c + self.ending)} for c, files in images.items()}

    # ---- cases

    @cached_property
    def folds(self) -> dict[int, Fold]:
        """The folds in use: the students', and those of all teachers.

        Raises:
            SemiSupervisedError: no such split or fold.
        """
        return {number: self._fold(number) for number in self.fold_numbers}

    @property
    def fold_numbers(self) -> list[int]:
        settings = self.settings
        return [*range(settings.n_teachers)] if settings.teachers == FOLDS else [settings.fold]

    @property
    def fold(self) -> Fold:
        """The students' fold."""
        return self.folds[self.settings.fold]

    def _fold(self, number: int) -> Fold:
        cases = labeled_cases(self.base, self.plans)
        if self.settings.split is not None:
            return load_fold(self.base, self.settings.split, number, cases)
        train_val = nnunet_folds(self.base, cases)[number]
        return Fold(train_val.train, [], train_val.val)

    @cached_property
    def labeled(self) -> list[str]:
        """Cases whose label some training may read, those for validation included."""
        return sorted({case for fold in self.folds.values() for case in (*fold.labeled, *fold.val)})

    @cached_property
    def withheld(self) -> list[str]:
        """Cases of imagesTr whose label no training of this run may read: withheld in every fold in use."""
        hidden = [set(fold.unlabeled) for fold in self.folds.values()]
        return sorted(set.intersection(*hidden))

    @cached_property
    def unlabeled(self) -> ImageFolder:
        """imagesUn"""
        return self._images(IMAGES)

    def _images(self, name: str) -> ImageFolder:
        """A folder of the raw dataset, which may be missing or hold no image."""
        folder = os.path.join(self.raw, name)
        try:
            return list_images(folder, self.ending)
        except SemiSupervisedError as error:
            raise_failure(error)
            return ImageFolder(folder, {}, [])

    @cached_property
    def pool(self) -> dict[str, list[str]]:
        """Case without label -> its images in the order of the channels: imagesUn, and the withheld cases."""
        return {**{case: list(self.files[case]["images"]) for case in self.withheld}, **self.unlabeled.cases}

    @cached_property
    def pool_hash(self) -> str:
        """Of ids, names and sizes: another pool has to be predicted anew, one that was moved has not."""
        content = {
            case: [(os.path.basename(file), os.path.getsize(file)) for file in files]
            for case, files in self.pool.items()
        }
        return hash_of(content)

    # ---- where things are

    @property
    def pool_folder(self) -> str:
        return os.path.join(self.output, "pool")

    def round_folder(self, round_number: int) -> str:
        return os.path.join(self.output, f"round_{round_number}")

    def teacher_folder(self, round_number: int, teacher: int) -> str:
        """Predictions of the pool by one teacher."""
        return os.path.join(self.round_folder(round_number), f"teacher_{teacher}")

    def ensemble_folder(self, round_number: int) -> str:
        return os.path.join(self.round_folder(round_number), "ensemble")

    def labels_folder(self, round_number: int) -> str:
        """The chosen label of every case of the pool."""
        return os.path.join(self.round_folder(round_number), "labels")

    def selection_file(self, round_number: int) -> str:
        return os.path.join(self.round_folder(round_number), "selection.json")

    def student_dataset(self, round_number: int) -> str:
        """Name of D_k."""
        return self.settings.datasets[round_number - 1]

    def student_raw(self, round_number: int) -> str:
        return os.path.join(nnUNet_raw, self.student_dataset(round_number))

    def student_base(self, round_number: int) -> str:
        return os.path.join(nnUNet_preprocessed, self.student_dataset(round_number))

    # ---- who trains

    def members(self, round_number: int) -> list[int]:
        """Trainings of a round: those of its teachers, in the last round the student alone."""
        settings = self.settings
        if settings.teachers == CHECKPOINTS:
            return [0]
        last = round_number == settings.rounds
        if settings.teachers == FOLDS:
            return [settings.fold] if last else [*range(settings.n_teachers)]
        return [0] if last and settings.rounds > 0 else [*range(settings.n_teachers)]

    @property
    def main_member(self) -> int:
        """The training of a round that is compared with the other rounds: same fold, same seed."""
        return self.settings.fold if self.settings.teachers == FOLDS else 0

    def fold_of(self, member: int) -> int:
        return member if self.settings.teachers == FOLDS else self.settings.fold

    def seed_of(self, member: int) -> int:
        return self.settings.first_seed + (0 if self.settings.teachers == FOLDS else member)
