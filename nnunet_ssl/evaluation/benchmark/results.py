"""What nnU-Net leaves of a training: is it finished, how long did its steps take."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from typing import Protocol

import torch
from nnunetv2.paths import nnUNet_results

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.training.settings import BLOCK

CHECKPOINT = "checkpoint_final.pth"  # never the best one: it was chosen on the validation cases


class Training(Protocol):
    """What says where nnU-Net puts a training."""

    @property
    def dataset(self) -> str: ...

    @property
    def configuration(self) -> str: ...

    @property
    def plans(self) -> str: ...

    @property
    def trainer(self) -> str: ...

    @property
    def fold(self) -> int: ...


@dataclass(frozen=True)
class Figures:
    """steps: training steps in all; seconds_per_step: median over epochs, with nnU-Net's validation steps in it."""

    steps: int
    seconds_per_step: float


def model_folder(job: Training) -> str:
    """nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"""
    return os.path.join(nnUNet_results, job.dataset, f"{job.trainer}__{job.plans}__{job.configuration}")


def fold_folder(job: Training) -> str:
    return os.path.join(model_folder(job), f"fold_{job.fold}")


def is_trained(job: Training) -> bool:
    """Trained to the end and validated to the end; a summary cut off while it was written does not count."""
    folder = fold_folder(job)
    try:
        read_json(os.path.join(folder, "validation", "summary.json"))
    except SemiSupervisedError as error:
        raise_failure(error)
        return False
    return os.path.isfile(os.path.join(folder, CHECKPOINT))


def training_figures(job: Training) -> Figures:
    """From the final checkpoint, which holds nnU-Net's log of the whole training, interruptions left out."""
    path = os.path.join(fold_folder(job), CHECKPOINT)
    checkpoint = torch.load(path, map_location="cpu", mmap=True, weights_only=False)
    training, logged = checkpoint[BLOCK]["settings"]["training"], checkpoint["logging"]
    per_epoch = int(training["num_iterations_per_epoch"])
    times = zip(logged["epoch_start_timestamps"], logged["epoch_end_timestamps"], strict=True)
    seconds = statistics.median(end - start for start, end in times)
    return Figures(int(training["num_epochs"]) * per_epoch, seconds / per_epoch)
