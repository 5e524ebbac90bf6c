"""What a self-training consists of, as OUT/selftrain.json keeps it."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError, complain

FILE = "selftrain.json"
VERSION = 1
SEEDS, CHECKPOINTS, FOLDS = "seeds", "checkpoints", "folds"
TEACHERS = (SEEDS, CHECKPOINTS, FOLDS)
AGREEMENT, CONFIDENCE, ENTROPY, STABILITY, NONE = "agreement", "confidence", "entropy", "stability", "none"
THRESHOLDS = {AGREEMENT: 0.9, CONFIDENCE: 0.8, ENTROPY: 0.9, STABILITY: 0.9, NONE: 0.0}
ALL, IGNORE = "all", "ignore"
JOINT, PRETRAIN, FINETUNE = "joint", "pretrain", "joint-finetune"
MODES = (JOINT, PRETRAIN, FINETUNE)
SCRATCH, PREVIOUS = "scratch", "previous"


@dataclass(frozen=True)
class SelfTraining:
    """Everything that decides about the result.

    Attributes:
        dataset: full name, DatasetXXX_Name.
        configuration, plans: nnU-Net's -c and -p, of the teachers.
        split: name in splits_ssl.json, or None: every training case of nnU-Net's fold is labelled.
        fold: whose validation cases judge; students and, but for teachers of several folds, teachers train on it.
        rounds: of pseudo-labels; 0: the control alone.
        teachers: of what they are made, one of TEACHERS.
        n_teachers: number of teachers in each round.
        select: score by which cases are kept, one of THRESHOLDS.
        threshold: a case is kept from this score on.
        keep_fraction: if given, the best share of the scored cases is kept, whatever the threshold.
        min_cases: fewer kept cases end the run.
        keep_empty: whether cases are kept in which no teacher finds anything.
        voxels: all, or ignore: uncertain voxels get the ignore label.
        voxel_confidence: below this mean probability a voxel is uncertain; it always is where teachers differ.
        mode: what students train on, one of MODES.
        labeled_share: lowest share of labelled cases among what a student draws, in [0, 1).
        start: scratch, or previous: the weights that students begin with.
        student_plans: plans of the students.
        training: settings of every training alike, see ``training.settings.TrainingSettings``.
        datasets: names of the students' datasets, one per round; those of more rounds in an earlier start stay.
        device: nnU-Net's -device.
        transductive: whether test images may be among the unlabelled ones.
        monitor_withheld_labels: whether the pseudo-labels' true Dice is reported where withheld labels exist.
    """

    dataset: str
    configuration: str
    plans: str = "nnUNetPlans"
    split: str | None = None
    fold: int = 0
    rounds: int = 2
    teachers: str = SEEDS
    n_teachers: int = 3
    select: str = AGREEMENT
    threshold: float = 0.9
    keep_fraction: float | None = None
    min_cases: int = 1
    keep_empty: bool = False
    voxels: str = ALL
    voxel_confidence: float = 0.8
    mode: str = JOINT
    labeled_share: float = 0.5
    start: str = SCRATCH
    student_plans: str = "nnUNetPlans"
    training: dict[str, Any] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    device: str = "cuda"
    transductive: bool = False
    monitor_withheld_labels: bool = False

    @property
    def first_seed(self) -> int:
        """Seed of the first teacher; the others count on from it."""
        return int(self.training.get("seed") or 0)

    @property
    def needs_probabilities(self) -> bool:
        """Whether label maps alone do not do: they are a thousandth of the size."""
        of_voxels = self.voxels == IGNORE and self.voxel_confidence > 0
        return self.rounds > 0 and (self.select in (CONFIDENCE, ENTROPY) or of_voxels)


def write_settings(output: str, settings: SelfTraining, facts: dict[str, Any]) -> None:
    """Write OUT/selftrain.json; ``facts``: versions and hashes, for people."""
    content = {"version": VERSION, "made_by": "nnunet_ssl selftrain", "settings": dataclasses.asdict(settings), **facts}
    write_json(os.path.join(output, FILE), content)


def read_settings(output: str) -> SelfTraining:
    """The settings of an earlier start.

    Raises:
        SemiSupervisedError: there is none in this folder, or another version wrote it.
    """
    path = os.path.join(output, FILE)
    if not os.path.isfile(path):
        raise complain(
            f"There is no self-training in {output}: {path} does not exist.",
            remedy="Name a dataset and a configuration, -d and -c, to begin one there.",
        )
    try:
        content = read_json(path, dict)
        values = {**content["settings"], "datasets": tuple(content["settings"]["datasets"])}
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return SelfTraining(**values)
    except SemiSupervisedError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise complain(
            f"{path} was not written by this version of nnunet_ssl selftrain ({error}).",
            remedy="Give the whole command again with another folder, -o.",
        ) from error
