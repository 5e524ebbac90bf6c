"""Prediction of a folder of images as the prediction settings of a model's plans say."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.discovery import register
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.prediction_record import CHECKPOINTS, RECORD, describe
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.prediction import AsPaperPredictor
from nnunet_ssl.training.settings import check_stride, parse_settings


def predict_as_paper(
    images: str,
    output: str,
    *,
    dataset: str,
    plans: str,
    trainer: str,
    configuration: str,
    folds: Sequence[str] = ("0",),
    checkpoint: str | None = None,
    device: str = "cuda",
    save_probabilities: bool = False,
) -> str:
    """Predict every image of a folder, and write prediction.json beside the predictions.

    Args:
        images: named as for nnUNetv2_predict.
        output: made where it is missing.
        dataset, plans, trainer, configuration, folds: of the model in nnUNet_results.
        checkpoint: file name; None: the one that the settings name.
        device: cuda, cpu or mps.
        save_probabilities: as of nnUNetv2_predict.

    Returns:
        How was predicted, in a sentence.

    Raises:
        SemiSupervisedError: no such model or checkpoint, or plans without prediction settings.
    """
    folder = _model(dataset, plans, trainer, configuration)
    own = read_json(os.path.join(folder, "plans.json"), dict)
    settings = parse_settings(own, trainer, find_any_trainer(trainer).Hyperparameters).prediction
    if settings is None:
        raise complain(
            f'{folder}/plans.json has no "prediction" settings, so that there is nothing to do otherwise than '
            "nnUNetv2_predict does.",
            remedy="Use nnUNetv2_predict, or train with plans of nnunet_ssl plans --prediction stride=...",
        )
    check_stride(settings, own, configuration)
    name = checkpoint or CHECKPOINTS[settings.checkpoint]
    missing = [p for f in folds if not os.path.isfile(p := os.path.join(folder, f"fold_{f}", name))]
    if missing:
        raise complain(
            "The model lacks checkpoints:", missing, "Finish the training, or name folds with -f and a file with -chk."
        )
    if not os.path.isdir(images):
        raise complain(f"{images} is not a folder of images.")
    register()
    predictor = AsPaperPredictor(settings, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, [*folds], name)
    os.makedirs(output, exist_ok=True)
    predictor.predict_from_files_sequential(images, output, save_probabilities)
    record = {"checkpoint": name, "stride": settings.stride, "weights": settings.weights, "averaged": settings.averaged}
    write_json(os.path.join(output, RECORD), record)
    return describe(record)


def _model(dataset: str, plans: str, trainer: str, configuration: str) -> str:
    if not nnUNet_results.get():
        raise complain("The environment variable nnUNet_results is not set.", remedy="Set nnU-Net's paths first.")
    try:
        folder = str(get_output_folder(dataset, trainer, plans, configuration))
    except RuntimeError as error:
        raise complain(str(error)) from error
    if not os.path.isfile(os.path.join(folder, "plans.json")):
        raise complain(
            f"There is no model in {folder}.",
            remedy=f"Train it: nnUNetv2_train {dataset} {configuration} 0 -p {plans} -tr {trainer}",
        )
    return folder
