"""What the user of the demo chose, and where everything lies that follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nnunet_ssl.errors import complain
from nnunet_ssl.trainers import CONTROL, FIRST_CHOICE, TRAINERS, find_trainer
from nnunet_ssl.training.settings import settings_name

CONFIGURATION = "3d_fullres"
SMALL_PLANS = "nnUNetPlans_small"
DEMO_PLANS = "nnUNetPlans_demo"
# With 50 steps an epoch. Adam and few epochs: nnU-Net's own schedule (SGD, 250 000 steps) needs a GPU and a day.
EPOCHS = 20


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes:
        output: folder of everything the demo writes, absolute.
        dataset_id: three digits.
        trainer: the semi-supervised trainer.
        device: as nnU-Net's -device.
        epochs: length of both training runs.
        seed: of the synthetic patients.
    """

    output: Path
    dataset_id: int = 999
    trainer: str = FIRST_CHOICE
    device: str = "cpu"
    epochs: int = EPOCHS
    seed: int = 0

    @property
    def dataset(self) -> str:
        return f"Dataset{self.dataset_id:03d}_SemiSupervisedDemo"

    @property
    def trainers(self) -> tuple[str, str]:
        """The control and the semi-supervised trainer."""
        return CONTROL, self.trainer

    @property
    def raw(self) -> Path:
        return self.output / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.output / "nnUNet_preprocessed" / self.dataset

    def model(self, trainer: str) -> Path:
        """nnU-Net's results folder of a trainer."""
        return self.output / "nnUNet_results" / self.dataset / f"{trainer}__{DEMO_PLANS}__{CONFIGURATION}"

    def predictions(self, trainer: str) -> Path:
        return self.output / "predictions" / trainer


def _epochs_in_name(trainer: str) -> int | None:
    kind: Any = find_trainer(trainer)
    epochs: int | None = kind.length_variant_epochs
    return epochs


def check_options(options: Options) -> None:
    """Refuse what would fail minutes later.

    Raises:
        SemiSupervisedError: an unknown trainer or the control, a number out of range, a device that is not there.
    """
    problems = []
    semi_supervised = [t for t in TRAINERS if t != CONTROL]
    if settings_name(options.trainer) not in semi_supervised:
        problems.append(f"-tr {options.trainer}: choose one of {', '.join(semi_supervised)}")
    elif _epochs_in_name(options.trainer) not in (None, options.epochs):
        problems.append(f"-tr {options.trainer} with --epochs {options.epochs}: both trainers need the same length")
    if not 1 <= options.dataset_id <= 999:
        problems.append(f"-d {options.dataset_id}: a dataset id lies between 1 and 999")
    if options.epochs < 1:
        problems.append(f"--epochs {options.epochs}: at least 1")
    if options.seed < 0:
        problems.append(f"--seed {options.seed}: at least 0")
    if options.device == "cuda" and not torch.cuda.is_available():
        problems.append("-device cuda: PyTorch finds no CUDA device")
    if options.device == "mps" and not torch.backends.mps.is_available():
        problems.append("-device mps: PyTorch finds no such device")
    if problems:
        raise complain("The demo cannot run like this:", problems, "Correct these options, or leave them out.")
