"""Label maps by any network of a checkpoint that has the predicting one's weights, such as the teacher."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_ssl.data.image_folder import list_images
from nnunet_ssl.discovery import register
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.model_folder import Model, auxiliary_weights, check_checkpoints, checkpoint_name
from nnunet_ssl.training.prediction import AsPaperPredictor
from nnunet_ssl.training.settings import check_stride


def predict_with(
    model: Model,
    networks: Sequence[str],
    images: str,
    output: str,
    *,
    fold: str = "0",
    checkpoint: str | None = None,
    cases: Sequence[str] | None = None,
    device: str = "cuda",
) -> dict[str, str]:
    """Predict images of a folder with networks of one checkpoint, into OUTPUT/NETWORK.

    Args:
        networks: "network", the trained one, "teacher", or others that the method keeps.
        images: named as for nnUNetv2_predict.
        fold, checkpoint: whose; None: the one that the plans' prediction settings name, else the final one.
        cases: ids; None: all.
        device: cuda, cpu or mps.

    Returns:
        network -> its folder.

    Raises:
        SemiSupervisedError: no such model, checkpoint, network or image.
    """
    folder, (plans, settings) = model.folder(), model.settings()
    name = checkpoint_name(settings, checkpoint)
    check_checkpoints(folder, [fold], name)
    register()
    own: dict[str, Any] = {"device": torch.device(device), "allow_tqdm": False}
    if (paper := settings.prediction) is None:
        predictor = nnUNetPredictor(**own)
    else:
        check_stride(paper, plans, model.configuration)
        predictor = AsPaperPredictor(paper, **own)
    predictor.initialize_from_trained_model_folder(folder, [fold], name)
    path = os.path.join(folder, f"fold_{fold}", name)
    weights, _ = auxiliary_weights(path)
    alike = [each for each, found in weights.items() if found.keys() == weights["network"].keys()]
    if unknown := [each for each in networks if each not in alike]:
        raise complain(
            f"{path} has {', '.join(alike)}, and no such networks:", unknown, "Choose one that it has with --networks."
        )
    files = list_images(images, predictor.dataset_json["file_ending"]).cases
    if absent := [case for case in cases or () if case not in files]:
        raise complain(
            f"{images} has no images of these cases:",
            absent,
            "Choose others with --cases, or give their folder with -i.",
        )
    inputs = [files[case] for case in cases or files]
    folders = {network: os.path.join(output, network) for network in networks}
    for network, target in folders.items():
        os.makedirs(target, exist_ok=True)
        predictor.list_of_parameters = [weights[network]]
        predictor.predict_from_files_sequential(inputs, target)
    return folders
