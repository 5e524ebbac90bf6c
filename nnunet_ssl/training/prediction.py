"""Prediction as publications do it: windows at a fixed stride, whose probabilities are averaged with equal weights."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from nnunetv2.configuration import default_num_processes
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import Tensor
from torch import distributed as dist

from nnunet_ssl.training.settings import PredictionSettings

LEAST = 1e-6  # probability; its log is finite


class AsPaperPredictor(nnUNetPredictor):
    """nnU-Net's predictor with windows by MONAI: start, fixed stride, and a last window that ends with the image.

    Sums are in float32: hundreds of windows overlap, more than nnU-Net's half precision adds up exactly. Images smaller
    than the patch are padded with zeros on both sides. Averages of probabilities leave as their logs (of regions as
    logits), so that all of nnU-Net that follows finds logits.

    Args:
        prediction: stride, weights and what is averaged.
        options: of nnUNetPredictor.
    """

    def __init__(self, prediction: PredictionSettings, **options: Any) -> None:
        super().__init__(**options)
        self.prediction = prediction
        self.network: Any
        self.list_of_parameters: Any

    @torch.inference_mode()
    def predict_sliding_window_return_logits(self, input_image: Tensor) -> Tensor:
        """Preprocessed (C, *S) -> logits (K, *S), on the CPU; in 2D plans slice by slice of the first axis."""
        from monai.inferers.utils import sliding_window_inference  # importing MONAI takes most of a second

        self.network = self.network.to(self.device).eval()
        patch, stride = self.configuration_manager.patch_size, self.prediction.stride
        assert stride is not None  # the settings see to it
        flat = len(patch) < input_image.ndim - 1
        batch = input_image.transpose(0, 1) if flat else input_image[None]
        summed = sliding_window_inference(
            batch.float(),
            roi_size=[int(edge) for edge in patch],
            sw_batch_size=1,
            predictor=self._of_window,
            overlap=[max(0.0, 1 - (step + 0.5) / edge) for step, edge in zip(stride, patch, strict=True)],  # it rounds
            mode="constant" if self.prediction.weights == "uniform" else "gaussian",
            sw_device=self.device,
            device=torch.device("cpu"),
        )
        assert isinstance(summed, Tensor)
        result = summed.transpose(0, 1) if flat else summed[0]
        return result if self.prediction.averaged == "logits" else self._as_logits(result)

    def _of_window(self, window: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            logits = self._internal_maybe_mirror_and_predict(window).float()
        if self.prediction.averaged == "logits":
            return logits
        return logits.sigmoid() if self.label_manager.has_regions else logits.softmax(1)

    def _as_logits(self, probabilities: Tensor) -> Tensor:
        if self.label_manager.has_regions:
            return torch.logit(probabilities, eps=LEAST)
        return probabilities.clamp(min=LEAST).log()

    def predict_logits_from_preprocessed_data(self, data: Tensor) -> Tensor:
        """nnU-Net's mean over folds, of probabilities where windows average these, too."""
        folds = self.list_of_parameters
        if len(folds) == 1 or self.prediction.averaged == "logits":
            return super().predict_logits_from_preprocessed_data(data)
        total: Any = 0
        for parameters in folds:
            self.list_of_parameters = [parameters]
            logits = super().predict_logits_from_preprocessed_data(data)
            total = total + (logits.sigmoid() if self.label_manager.has_regions else logits.softmax(0))
        self.list_of_parameters = folds
        return self._as_logits(total / len(folds))


def validate(trainer: Any, prediction: PredictionSettings, save_probabilities: bool) -> None:
    """What nnU-Net does at the end of a training, with an :class:`AsPaperPredictor`: predictions and summary.json.

    Args:
        trainer: whose network predicts the validation cases of its fold.
        prediction: the settings of its plans.
        save_probabilities: as of nnUNetv2_train --npz.
    """
    trainer.set_deep_supervision_enabled(False)
    predictor = AsPaperPredictor(prediction, device=trainer.device, allow_tqdm=False, perform_everything_on_device=True)
    plans, configuration, dataset_json = trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    predictor.manual_initialization(
        trainer.network, plans, configuration, None, dataset_json, type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip
    folder = os.path.join(trainer.output_folder, "validation")
    os.makedirs(folder, exist_ok=True)
    ranks = dist.get_world_size() if trainer.is_ddp else 1
    cases = trainer.do_split()[1][trainer.local_rank :: ranks]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    for case in dataset.identifiers:
        trainer.print_to_log_file(f"predicting {case}")
        data, _, _, properties = dataset.load_case(case)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an array that is not writable, which nobody writes
            image = torch.from_numpy(data[:])
        logits = predictor.predict_sliding_window_return_logits(image)
        export_prediction_from_logits(
            logits, properties, configuration, plans, dataset_json, os.path.join(folder, case), save_probabilities
        )
    if trainer.is_ddp:
        dist.barrier()
    if trainer.local_rank == 0:
        labels = trainer.label_manager
        metrics = compute_metrics_on_folder(
            os.path.join(trainer.preprocessed_dataset_folder_base, "gt_segmentations"),
            folder,
            os.path.join(folder, "summary.json"),
            plans.image_reader_writer_class(),
            dataset_json["file_ending"],
            labels.foreground_regions if labels.has_regions else labels.foreground_labels,
            labels.ignore_label,
            num_processes=default_num_processes,
            chill=True,
        )
        for label, values in metrics["mean"].items():
            trainer.logger.log_summary(f"final_val/class_{label}_dice", values["Dice"])
        trainer.logger.log_summary("final_val/foreground_dice", metrics["foreground_mean"]["Dice"])
        trainer.print_to_log_file("Validation complete", also_print_to_console=True)
        trainer.print_to_log_file(
            "Mean Validation Dice: ", metrics["foreground_mean"]["Dice"], also_print_to_console=True
        )
    trainer.set_deep_supervision_enabled(True)
