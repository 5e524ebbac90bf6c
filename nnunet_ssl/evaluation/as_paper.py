"""Prediction of a folder of images as the prediction settings of a model's plans say."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.discovery import register
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.model_folder import Model, check_checkpoints, checkpoint_name
from nnunet_ssl.evaluation.prediction_record import RECORD, describe
from nnunet_ssl.training.prediction import AsPaperPredictor
from nnunet_ssl.training.settings import check_stride


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
    model = Model(dataset, plans, trainer, configuration)
    folder, (own, whole) = model.folder(), model.settings()
    settings = whole.prediction
    if settings is None:
        raise complain(
            f'{folder}/plans.json has no "prediction" settings, so that there is nothing to do otherwise than '
            "nnUNetv2_predict does.",
            remedy="Use nnUNetv2_predict, or train with plans of nnunet_ssl plans --prediction stride=...",
        )
    check_stride(settings, own, configuration)
    name = checkpoint_name(whole, checkpoint)
    check_checkpoints(folder, [*folds], name)
    if not os.path.isdir(images):
        raise complain(f"{images} is not a folder of images.", remedy="Give that folder with -i.")
    register()
    predictor = AsPaperPredictor(settings, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(folder, [*folds], name)
    os.makedirs(output, exist_ok=True)
    predictor.predict_from_files_sequential(images, output, save_probabilities)
    record = {"checkpoint": name, "stride": settings.stride, "weights": settings.weights, "averaged": settings.averaged}
    write_json(os.path.join(output, RECORD), record)
    return describe(record)
