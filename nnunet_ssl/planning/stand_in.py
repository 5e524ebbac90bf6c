"""A trainer and a batch for it without a dataset: folders that pass for preprocessed data, random patches."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch import Tensor, nn

from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised
from nnunet_ssl.training.settings import BLOCK
from nnunet_ssl.training.watch import epochs_between_looks

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def write_stand_in(root: Path, plans: Mapping[str, Any], configuration: str) -> None:
    """One empty preprocessed case below ``root``, and nnU-Net's variables pointing there."""
    for name in FOLDERS:
        os.environ[name] = str(root / name)
        (root / name).mkdir()
    identifier = plans["configurations"][configuration]["data_identifier"]
    folder = root / "nnUNet_preprocessed" / plans["dataset_name"] / identifier
    folder.mkdir(parents=True)
    empty = np.zeros((1, 4, 4, 4), np.float32)
    sizes = {"chunks": empty.shape, "blocks": empty.shape}
    nnUNetDatasetBlosc2.save_case(empty, empty.astype(np.int16), {}, str(folder / "case"), **sizes)


@contextmanager
def stand_in_folders(plans: Mapping[str, Any], configuration: str) -> Iterator[None]:
    """nnU-Net's variables point at temporary folders with one empty case; afterwards where they did before."""
    before = {name: os.environ.get(name) for name in FOLDERS}
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_stand_in(Path(folder), plans, configuration)
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make_trainer(
    trainer: type,
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    device: torch.device,
    fold: int | str = "all",
) -> Any:
    """A silent trainer with its networks and optimiser, in the middle of training, so that every term is at work.

    Args:
        trainer: nnU-Net's own or one of this package.
        plans, configuration, dataset_json: they stay as they are.
        device: ``meta`` for a trainer without data.
        fold: of the split that the settings name, for real data; "all" passes over the split.
    """
    own = copy.deepcopy(dict(plans)) | {"continue_training": False}
    if BLOCK in own and fold == "all":
        own[BLOCK].pop("split", None)
    with redirect_stdout(open(os.devnull, "w")):
        made = trainer(own, configuration, fold, copy.deepcopy(dict(dataset_json)), device)
        made.print_to_log_file = lambda *args, **kwargs: None
        made._save_debug_information = lambda: None
        if device.type == "meta":
            made._do_i_compile = _never
            if isinstance(made, nnUNetTrainerSemiSupervised):
                made.second_network = _on_device(made.second_network, device)  # type: ignore[method-assign]
        made.initialize()
    made.current_epoch = made.num_epochs // 2
    made.network.train()
    if isinstance(made, nnUNetTrainerSemiSupervised):
        # an epoch with looks at the pull of each term
        made.current_epoch -= made.current_epoch % epochs_between_looks(made.num_iterations_per_epoch)
        made.streams.strong_view = made.make_strong_view(anisotropic=False)
        if any(field.name == "guard" for field in fields(made.hyperparameters)):
            made.hyperparameters = replace(made.hyperparameters, guard=False)  # what is random looks like no label
    return made


def _never() -> bool:
    return False


def _on_device(build: Callable[..., nn.Module], device: torch.device) -> Callable[..., nn.Module]:
    """A further network where the first one is: weights without data cannot be copied to others."""

    def built(*args: Any, **options: Any) -> nn.Module:
        with device:
            return build(*args, **options)

    return built


def labeled_batch(trainer: Any, patches: int, device: torch.device) -> dict[str, Any]:
    """What nnU-Net's loader yields, with random content, or on ``meta`` with none."""
    patch = trainer.configuration_manager.patch_size
    scales = trainer._get_deep_supervision_scales() or [[1] * len(patch)]
    classes = trainer.label_manager.num_segmentation_heads
    channels = len(trainer.label_manager.foreground_regions) if trainer.label_manager.has_regions else 1
    shapes = [[round(p * s) for p, s in zip(patch, scale, strict=True)] for scale in scales]
    target = [
        torch.randint(0, 2 if channels > 1 else classes, (patches, channels, *shape), dtype=torch.int16, device=device)
        for shape in shapes
    ]
    images = torch.randn(patches, trainer.num_input_channels, *patch, device=device)
    return {"data": images, "target": target if len(target) > 1 else target[0]}


def training_batch(trainer: Any, patches: int, device: torch.device) -> dict[str, Any]:
    """A batch as the trainer's loaders yield it; no voxel is padding.

    Args:
        trainer: see :func:`make_trainer`.
        patches: labelled ones.
        device: ``cpu``, or ``meta``.
    """
    batch = labeled_batch(trainer, patches, device)
    if not isinstance(trainer, nnUNetTrainerSemiSupervised):
        return batch
    patch = trainer.configuration_manager.patch_size
    labels = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
    batch["extra"] = {"valid": torch.ones(patches, 1, *patch, dtype=torch.bool, device=device)}
    for step in trainer.labeled_steps():
        # of an empty patch, since only the size counts; distances of noise would take long
        found = step(segmentation=torch.zeros(labels.shape[1:], dtype=labels.dtype))
        extra = {name: value for name, value in found.items() if name != "segmentation"}
        batch["extra"] |= {name: torch.stack([value] * patches).to(device) for name, value in extra.items()}
    streams = trainer.streams
    if streams.needs("labeled", "image") and streams.needs("labeled", "weak"):
        batch["extra"]["weak"] = torch.randn_like(batch["data"])
    if streams.pool:
        batch["unlabeled"] = _unlabeled(trainer, batch["data"])
    return batch


def _unlabeled(trainer: Any, labeled: Tensor) -> dict[str, Tensor]:
    number, streams = trainer.streams.unlabeled_batch_size, trainer.streams
    shape, device = labeled.shape[1:], labeled.device
    named = {"data": torch.randn(number, *shape, device=device)}
    named["valid"] = torch.ones(number, 1, *shape[1:], dtype=torch.bool, device=device)
    if streams.needs("unlabeled", "image") and streams.needs("unlabeled", "weak"):
        named["weak"] = torch.randn(number, *shape, device=device)
    return named
