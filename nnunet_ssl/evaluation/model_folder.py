"""The folder of a trained model in nnUNet_results, as a command names it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.prediction_record import CHECKPOINTS
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.settings import BLOCK, Settings, parse_settings


@dataclass(frozen=True)
class Model:
    """A model as nnU-Net's commands name it: -d, -p, -tr and -c."""

    dataset: str
    plans: str
    trainer: str
    configuration: str

    def folder(self) -> str:
        """Its folder.

        Raises:
            SemiSupervisedError: nnUNet_results is not set, or there is no such model.
        """
        if not nnUNet_results.get():
            raise complain(
                "The environment variable nnUNet_results is not set.",
                remedy="Say where that folder is: export nnUNet_results=FOLDER",
            )
        try:
            folder = str(get_output_folder(self.dataset, self.trainer, self.plans, self.configuration))
        except RuntimeError as error:
            raise complain(str(error), remedy="Give the number or the name of a dataset with -d.") from error
        if not os.path.isfile(os.path.join(folder, "plans.json")):
            raise complain(
                f"There is no model in {folder}.",
                remedy=f"Train it: nnUNetv2_train {self.dataset} {self.configuration} 0 -p {self.plans} "
                f"-tr {self.trainer}",
            )
        return folder

    def settings(self) -> tuple[dict[str, Any], Settings]:
        """Content of its plans.json, and the settings in it."""
        plans = read_json(os.path.join(self.folder(), "plans.json"), dict)
        return plans, parse_settings(plans, self.trainer, find_any_trainer(self.trainer).Hyperparameters)


def checkpoint_name(settings: Settings, asked: str | None) -> str:
    """The file that was asked for, else the one that the prediction settings name, else the final one."""
    return asked or CHECKPOINTS["final" if settings.prediction is None else settings.prediction.checkpoint]


def check_checkpoints(folder: str, folds: list[str], name: str) -> None:
    """Raise SemiSupervisedError where folds of a model lack a checkpoint of this name."""
    missing = [p for f in folds if not os.path.isfile(p := os.path.join(folder, f"fold_{f}", name))]
    if missing:
        raise complain(
            "The model lacks checkpoints:", missing, "Finish the training, or name folds with -f and a file with -chk."
        )


def auxiliary_weights(path: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Weights of every network of a checkpoint by name, "network" the trained one, and what else this package keeps.

    A file in which another network predicts holds the trained one under that name, which is put right here.

    Args:
        path: checkpoint of a trainer of this package.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    state = checkpoint[BLOCK]
    weights = {"network": checkpoint["network_weights"], **state.get("auxiliary", {})}
    if (predictor := state.get("predictor")) is not None:
        weights["network"], weights[predictor] = weights[predictor], weights["network"]
    return weights, state
