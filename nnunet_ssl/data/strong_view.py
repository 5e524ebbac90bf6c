"""The strong view of patches: photometric changes on the training device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor

from nnunet_ssl.data.intensity import BlurOnDevice, HistogramShift, LocalBrightness, OnDevice, RelativeNoise, uniform
from nnunet_ssl.data.views import keep_background


class AtLeastOne(ImageOnlyTransform):
    """Each transform with its probability, and if none that is visible is drawn, the one that was nearest to it.

    Args:
        steps: (probability, transform) in their order.
        faint: kinds of transforms that alone do not count as a change.
    """

    def __init__(self, steps: Sequence[tuple[float, ImageOnlyTransform]], faint: tuple[type, ...] = ()) -> None:
        super().__init__()
        self.probabilities = [probability for probability, _ in steps]
        self.transforms = [transform for _, transform in steps]
        self.visible = [not isinstance(getattr(t, "transform", t), faint) for t in self.transforms]

    def get_parameters(self, **data_dict: Tensor) -> dict:
        luck = [uniform() / max(p, 1e-9) for p in self.probabilities]  # below 1: drawn
        counted = [x for x, visible in zip(luck, self.visible, strict=True) if visible]
        limit = max(min(counted, default=0.0), 1.0)
        drawn = [x < 1 or (visible and x <= limit) for x, visible in zip(luck, self.visible, strict=True)]
        return {"drawn": drawn}

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        for transform, drawn in zip(self.transforms, params["drawn"], strict=True):
            if drawn:
                img = transform(image=img)["image"]
        return img


def gamma_away_from_one(**_: Any) -> float:
    """Log-uniform in (0.4, 0.7) or (1.43, 2.5)."""
    gamma = math.exp(uniform(math.log(1 / 0.7), math.log(2.5)))
    return gamma if uniform() < 0.5 else 1 / gamma


class StrongView:
    """The photometric view: what changes the pattern of an image and not only its scale, geometry untouched.

    Behind a convolution and an instance norm, as nnU-Net's networks have them, an image of one channel is the same with
    another brightness or contrast; so each view has at least one change that such a network sees: blur, low
    resolution, a local brightness or another histogram. Ranges and probabilities are recommended.

    Args:
        ignore_axes: spatial axes that low resolution leaves alone (the slice axis of anisotropic plans).
        extra: transforms a method adds at the end; each receives ``image=(C, *P)`` on the training device.
        masked_channels: channels whose background stays zero, see :func:`keep_background`.

    Attributes:
        drawn: the photometric transforms with their probabilities.
    """

    faint: tuple[type, ...] = (MultiplicativeBrightnessTransform, ContrastTransform, RelativeNoise, GammaTransform)
    """Transforms that alone do not count as a change: affine ones, and noise and gamma, which networks often overlook.

    Of a briefly trained small network's softmax noise changed 62 % and gamma 19 and 38 % by less than .002.
    """

    def __init__(
        self,
        ignore_axes: tuple[int, ...] | None = None,
        extra: tuple[BasicTransform, ...] = (),
        masked_channels: Sequence[int] = (),
    ) -> None:
        self.masked_channels = list(masked_channels)
        self.drawn = AtLeastOne(self.steps(ignore_axes), self.faint)
        self.transforms = ComposeTransforms([self.drawn, *extra])

    def steps(self, ignore_axes: tuple[int, ...] | None) -> list[tuple[float, ImageOnlyTransform]]:
        """(probability, transform) in their order; another view overrides this."""
        brightness = MultiplicativeBrightnessTransform(BGContrast((0.6, 1.5)), False)
        contrast = ContrastTransform(BGContrast((0.5, 1.6)), preserve_range=True, synchronize_channels=False)
        low_resolution = SimulateLowResolutionTransform((0.4, 0.7), False, True, ignore_axes)
        inverted_gamma, gamma = (GammaTransform(gamma_away_from_one, p, False, 1, 1) for p in (1, 0))
        return [
            (0.3, RelativeNoise((0.03, 0.15))),
            (0.3, BlurOnDevice(GaussianBlurTransform((0.7, 1.5), False, False, 1))),
            (0.3, OnDevice(brightness)),
            (0.3, OnDevice(contrast)),
            (0.25, OnDevice(low_resolution)),
            (0.25, OnDevice(inverted_gamma)),
            (0.25, OnDevice(gamma)),
            (0.3, LocalBrightness((0.3, 1.0), (0.15, 0.4))),
            (0.3, HistogramShift(6)),
        ]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, *P) -> (B, C, *P) on the same device; every sample draws its own parameters."""
        changed = torch.stack([self.transforms(image=image)["image"] for image in images.clone()])
        return keep_background(changed, images, self.masked_channels)
