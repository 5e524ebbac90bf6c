"""Views of patches on the loader's workers: weak (geometric) or nnU-Net's own. Strong ones: strong_view.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from torch import Tensor

GEOMETRIC = (SpatialTransform, MirrorTransform, Convert3DTo2DTransform, Convert2DTo3DTransform)


def augmentation(
    training: ComposeTransforms, whole: bool, weak: bool, labeled: bool, masked_channels: Sequence[int] = ()
) -> ComposeTransforms:
    """nnU-Net's training augmentation of a trainer as the views of one stream need it.

    Its geometric transforms come from the trainer's own pipeline, so that a changed rotation range or mirror axis holds
    for every view. The segmentation's last channel marks padding (``PaddingMarked``, ``UnlabeledDataset`` in
    streams.py), which becomes ``valid``, (1, *P) bool.

    Args:
        training: nnU-Net's training augmentation.
        whole: the image with all of it; else with its geometry alone.
        weak: the image with its geometry alone: in place of the whole, or beside it under the name ``weak``.
        labeled: with what needs a label; without it the background of masked channels stays zero, see
            :func:`keep_background`.
        masked_channels: of unlabelled images.
    """
    steps: list[BasicTransform] = []
    branched = named = False
    for step in training.transforms:
        if changes_intensities(step):
            if not whole:
                continue
            if weak and not branched:
                steps.append(KeepWeak())
                branched = True
            steps.append(KeepingBackground(step, masked_channels) if masked_channels and not labeled else step)
        elif labeled or isinstance(step, GEOMETRIC):
            if labeled and isinstance(step, RemoveLabelTransform) and not named:
                steps.append(NamePadding())  # nnU-Net turns the -1 of padding into background in a step of its own
                named = True
            steps.append(OnWeakToo(step) if branched and not isinstance(step, SegOnlyTransform) else step)
    if whole and weak and not branched:  # nothing changes intensities
        steps.append(KeepWeak())
    return ComposeTransforms(steps if named else [*steps, NamePadding()])


def changes_intensities(transform: Any) -> bool:
    """Of an image alone; nnU-Net mostly wraps such a transform in a RandomTransform."""
    return not isinstance(transform, GEOMETRIC) and isinstance(
        getattr(transform, "transform", transform), ImageOnlyTransform
    )


class NamePadding(BasicTransform):
    """Takes the last channel off the segmentation, negative at padding: it becomes ``valid``, (1, *P) bool."""

    def apply(self, data_dict: dict, **params) -> dict:
        segmentation = data_dict["segmentation"]
        return {**data_dict, "valid": segmentation[-1:] >= 0, "segmentation": segmentation[:-1]}


class NameWithheld(BasicTransform):
    """The first channel of an unlabelled segmentation, which monitoring put there, becomes ``withheld``, (1, *P)."""

    def apply(self, data_dict: dict, **params) -> dict:
        return {**data_dict, "withheld": data_dict["segmentation"][:1]}


class KeepWeak(BasicTransform):
    """The image as it is now is the weak view, before the first change of intensities."""

    def apply(self, data_dict: dict, **params) -> dict:
        return {**data_dict, "weak": data_dict["image"].clone()}


class OnWeakToo(BasicTransform):
    """Runs a transform with the same random parameters on the image and on the weak view."""

    def __init__(self, transform: BasicTransform) -> None:
        super().__init__()
        self.transform = transform

    def get_parameters(self, **data_dict) -> dict:
        return self.transform.get_parameters(**data_dict)

    def apply(self, data_dict: dict, **params) -> dict:
        weak = {"image": data_dict.pop("weak"), "segmentation": data_dict["segmentation"]}
        weak = self.transform.apply(weak, **params)
        return {**self.transform.apply(data_dict, **params), "weak": weak["image"]}


def keep_background(changed: Tensor, original: Tensor, channels: Sequence[int]) -> Tensor:
    """Zero where the original is exactly zero in all of these channels; (B, C, *P), changed in place.

    nnU-Net normalises such channels inside the nonzero mask and sets what lies outside to zero, after augmentation too.
    """
    if channels:
        inside = (original[:, channels] != 0).any(1, keepdim=True)
        for channel in channels:
            changed[:, channel : channel + 1] *= inside
    return changed


class KeepingBackground(ImageOnlyTransform):
    """Runs a transform of the image (C, *P) and restores the background of the masked channels."""

    def __init__(self, transform: BasicTransform, channels: Sequence[int]) -> None:
        super().__init__()
        self.transform = transform
        self.channels = list(channels)

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        changed = self.transform(image=img.clone())["image"]
        return keep_background(changed[None], img[None], self.channels)[0]
