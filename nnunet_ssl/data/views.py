"""Views of patches: weak (geometric) or nnU-Net's own on the loader's workers, strong on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
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


class OnDevice(ImageOnlyTransform):
    """Runs an intensity transform of batchgeneratorsv2 on any device without synchronising with it.

    The random parameters are drawn for a placeholder in main memory, so that reading them never waits for the device.
    """

    def __init__(self, transform: ImageOnlyTransform) -> None:
        super().__init__()
        self.transform = transform

    def get_parameters(self, **data_dict: Tensor) -> dict:
        image = data_dict["image"]
        return self.transform.get_parameters(image=torch.empty(1, dtype=image.dtype).expand(image.shape))

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        if isinstance(params.get("apply_idx"), Tensor):  # the noise transform indexes the image with it
            params["apply_idx"] = params["apply_idx"].to(img.device, non_blocking=True)
        return self.transform._apply_to_image(img, **params)


class BlurOnDevice(ImageOnlyTransform):
    """batchgeneratorsv2's random Gaussian blur, filtered by MONAI, whose kernels live on the image's device."""

    def __init__(self, blur: GaussianBlurTransform) -> None:
        super().__init__()
        self.blur = blur

    def get_parameters(self, **data_dict: Tensor) -> dict:
        return self.blur.get_parameters(image=data_dict["image"])

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        # here, since MONAI takes two seconds to import, and no command but a training run with strong views blurs
        from monai.networks.layers.simplelayers import gaussian_1d, separable_filtering

        channels = torch.where(params["apply_to_channel"])[0].tolist()
        for channel, sigmas in zip(channels, params["sigmas"], strict=True):
            kernels = [
                gaussian_1d(torch.tensor(float(sigma)), approx="sampled").to(img.device, non_blocking=True)
                for sigma in sigmas
            ]
            img[channel] = separable_filtering(img[None, channel : channel + 1], kernels, mode="replicate")[0, 0]
        return img


class StrongView:
    """The photometric view: brightness, contrast, gamma, noise, blur and low resolution, geometry untouched.

    nnU-Net's own intensity transforms with wider ranges and higher probabilities (recommended; nnU-Net 2.8.1 uses
    noise 0.1, blur 0.2, brightness and contrast 0.15, low resolution 0.25, gamma 0.3 and 0.1).

    Args:
        ignore_axes: spatial axes that low resolution leaves alone (the slice axis of anisotropic plans).
        extra: transforms a method adds at the end; each receives ``image=(C, *P)`` on the training device.
        masked_channels: channels whose background stays zero, see :func:`keep_background`.
    """

    def __init__(
        self,
        ignore_axes: tuple[int, ...] | None = None,
        extra: tuple[BasicTransform, ...] = (),
        masked_channels: Sequence[int] = (),
    ) -> None:
        self.masked_channels = list(masked_channels)
        steps = self.steps(ignore_axes)
        self.transforms = ComposeTransforms([*(RandomTransform(t, p) for p, t in steps), *extra])

    def steps(self, ignore_axes: tuple[int, ...] | None) -> list[tuple[float, ImageOnlyTransform]]:
        """(probability, transform) in their order; another view overrides this."""
        brightness = MultiplicativeBrightnessTransform(BGContrast((0.6, 1.5)), False)
        contrast = ContrastTransform(BGContrast((0.5, 1.6)), preserve_range=True, synchronize_channels=False)
        low_resolution = SimulateLowResolutionTransform((0.5, 1), False, True, ignore_axes, p_per_channel=0.5)
        inverted_gamma, gamma = (GammaTransform(BGContrast((0.6, 1.7)), p, False, 1, 1) for p in (1, 0))
        return [
            (0.3, OnDevice(GaussianNoiseTransform((0, 0.1), 1, True))),
            (0.3, BlurOnDevice(GaussianBlurTransform((0.5, 1.5), False, False, 0.5))),
            (0.5, OnDevice(brightness)),
            (0.5, OnDevice(contrast)),
            (0.25, OnDevice(low_resolution)),
            (0.15, OnDevice(inverted_gamma)),
            (0.3, OnDevice(gamma)),
        ]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, *P) -> (B, C, *P) on the same device; every sample draws its own parameters."""
        changed = torch.stack([self.transforms(image=image)["image"] for image in images.clone()])
        return keep_background(changed, images, self.masked_channels)
