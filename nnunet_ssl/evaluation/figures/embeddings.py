"""Embeddings of patches as PLGCL's contrast sees them: encoder and head of a checkpoint, patches of its sampler.

Source: PLGCL (Basak & Yin, CVPR 2023), Sec. 3.1 and Fig. 3, E_S and H_S.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunet_ssl.architectures.projection import ProjectionHead, pooled_features
from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, load_folds
from nnunet_ssl.data.splits import load_fold
from nnunet_ssl.data.streams import PaddingMarked
from nnunet_ssl.discovery import register
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.model_folder import Model, auxiliary_weights, check_checkpoints
from nnunet_ssl.trainers.plgcl.settings import PLGCLHyperparameters
from nnunet_ssl.training.checkpoint import seed_everything
from nnunet_ssl.training.deep_supervision import finest
from nnunet_ssl.training.network import unwrap

HEAD = "head"


class PatchEmbedder:
    """Draws batches from preprocessed cases and embeds their patches, as in a step of training but without gradient.

    Args:
        model: of PLGCL.
        fold, checkpoint: file name in the folder of the fold.
        cases: ids; None: the validation cases of the fold.
        pseudo: patches are chosen by the network's own probabilities, as in images without labels; else by the labels.
        device: cuda, cpu or mps.

    Raises:
        SemiSupervisedError: no such model, checkpoint or case, or a model without a head for patches.
    """

    def __init__(
        self, model: Model, fold: int, checkpoint: str, cases: Sequence[str] | None, pseudo: bool, device: str
    ) -> None:
        folder, settings = model.folder(), model.settings()[1]
        if not isinstance(hp := settings.hyperparameters, PLGCLHyperparameters):
            raise complain(
                f"{model.trainer} embeds no patches.",
                remedy="Give a model of nnUNetTrainerPLGCL or of its presets (-tr).",
            )
        check_checkpoints(folder, [str(fold)], checkpoint)
        register()
        self.device, self.pseudo, self.predictor = torch.device(device), pseudo, nnUNetPredictor(allow_tqdm=False)
        self.predictor.initialize_from_trained_model_folder(folder, [fold], checkpoint)
        weights, _ = auxiliary_weights(os.path.join(folder, f"fold_{fold}", checkpoint))
        plan = self.predictor.configuration_manager
        self.network = self._ready(unwrap(self.predictor.network), weights["network"])
        self.encoder = copy.deepcopy(self.network.encoder).train()  # a batch norm sees the patches of the step alone
        channels, size = weights[HEAD]["hidden.weight"].shape[0], weights[HEAD]["out.weight"].shape[0]
        self.head = self._ready(ProjectionHead(channels, size), weights[HEAD])
        self.batch = plan.batch_size + (hp.unlabeled_batch_size or plan.batch_size)
        self.grid = hp.grid(plan, self.batch)
        self.generator = torch.Generator(self.device)
        labels = self.predictor.label_manager
        self.sampler = hp.sampler(self.predictor.plans_manager, plan, labels, self.grid, self.generator)
        base = preprocessed_base(model.dataset)
        self.data = _dataset(os.path.join(base, plan.data_identifier), cases or _validation(base, settings.split, fold))

    @property
    def class_names(self) -> list[str]:
        """By the class of a patch."""
        labels = self.predictor.label_manager
        names = [name for name in labels.label_dict if name not in ("background", "ignore")]
        if not labels.has_regions:
            names.sort(key=lambda name: int(np.min(labels.label_dict[name])))
        return ["background", *names]

    @torch.no_grad()
    def embed(self, batches: int, seed: int = 0) -> pd.DataFrame:
        """One row per patch: batch, class, and the coordinates e0, e1, ... of its unit vector.

        Args:
            batches: each of as many images as a training step, with foreground in every one.
            seed: of the places and of the sampler.
        """
        seed_everything(seed)
        self.generator.manual_seed(seed)
        plan, labels = self.predictor.configuration_manager, self.predictor.label_manager
        loader = nnUNetDataLoader(self.data, self.batch, plan.patch_size, plan.patch_size, labels, 1.0)
        loader._data = PaddingMarked(self.data)
        tables = [self._embed(index, next(loader)) for index in range(batches)]
        return pd.concat(tables, ignore_index=True)

    def _embed(self, index: int, batch: dict[str, Any]) -> pd.DataFrame:
        labels = self.predictor.label_manager
        images, (target, padding) = batch["data"].to(self.device), batch["target"].split(1, 1)
        target, valid = as_nnunet(target.clamp(min=0), labels).to(self.device), (padding == 0).to(self.device)
        guess = None
        if self.pseudo or labels.has_ignore_label:
            guess = self.sampler.confidence(finest(self.network(images)))
        confidence = guess if self.pseudo else self.sampler.true_confidence(target, guess)
        assert confidence is not None
        patches, _ = self.sampler.sample(images, confidence, valid)
        vectors = self.head(pooled_features(self.encoder, patches.images(), self.grid.stage), patches.valid)
        names = self.class_names
        table = pd.DataFrame(vectors[patches.valid].cpu().numpy()).add_prefix("e")
        table.insert(0, "class", [names[value] for value in patches.classes[patches.valid].tolist()])
        table.insert(0, "batch", index)
        return table

    def _ready(self, module: nn.Module, weights: dict[str, Any]) -> Any:
        module.load_state_dict(weights)
        return module.to(self.device).eval()


def as_nnunet(labels: Tensor, manager: LabelManager) -> Tensor:
    """(B, 1, *S) label values -> as nnU-Net's loaders give them, with regions a channel of each, then the ignored."""
    if not manager.has_regions:
        return labels
    ignored = [] if manager.ignore_label is None else [manager.ignore_label]
    transform = ConvertSegmentationToRegionsTransform([*manager.foreground_regions, *ignored], channel_in_seg=0)
    return torch.stack([transform(segmentation=one)["segmentation"] for one in labels])


def _dataset(folder: str, cases: Sequence[str]) -> Any:
    kind = infer_dataset_class(folder)
    if unknown := sorted({*cases} - {*kind.get_identifiers(folder)}):
        raise complain(
            f"These cases are not in {folder}:",
            unknown,
            "Give preprocessed cases with --cases, or none for the validation cases of the fold.",
        )
    return kind(folder, list(cases))


def _validation(base: str, split: str | None, fold: int) -> list[str]:
    if split is not None:
        return list(load_fold(base, split, fold).val)
    return list(load_folds(os.path.join(base, NNUNET_FOLDS))[fold].val)
