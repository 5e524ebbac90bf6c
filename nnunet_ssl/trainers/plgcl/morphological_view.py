"""Strong views with grey-value morphology.

Source: PLGCL (Basak & Yin, CVPR 2023), Sec. 4.2, names morphology and brightness changes without magnitudes; those here
are recommended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.data.intensity import OnDevice
from nnunet_ssl.data.strong_view import StrongView

OPERATIONS = {"erosion": "e", "dilation": "d", "opening": "ed", "closing": "de"}


class Morphology(ImageOnlyTransform):
    """One of grey-value erosion, dilation, opening and closing with a box of 3 voxels per axis; edges move by one.

    Args:
        ignore_axes: spatial axes along which the box is 1 voxel wide.
    """

    def __init__(self, ignore_axes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.ignore_axes = tuple(ignore_axes or ())

    def get_parameters(self, **data_dict: Any) -> dict:
        return {"operation": list(OPERATIONS)[int(torch.randint(len(OPERATIONS), ()))]}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        for step in OPERATIONS[params["operation"]]:
            sign = 1 if step == "d" else -1
            img = sign * self._dilate(sign * img)
        return img

    def _dilate(self, img: Tensor) -> Tensor:
        box = [1 if axis in self.ignore_axes else 3 for axis in range(img.ndim - 1)]
        pool = F.max_pool3d if len(box) == 3 else F.max_pool2d
        return pool(img[None], box, stride=1, padding=[b // 2 for b in box])[0]


class Shift(ImageOnlyTransform):
    """Adds U(-limit, limit) to the whole image."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def get_parameters(self, **data_dict: Any) -> dict:
        return {"shift": (2 * float(torch.rand(())) - 1) * self.limit}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return img + params["shift"]


class MorphologicalView(StrongView):
    """The package's strong view and morphology; geometry is untouched but for the voxel by which edges move."""

    def steps(self, ignore_axes: tuple[int, ...] | None) -> list[tuple[float, ImageOnlyTransform]]:
        return [*super().steps(ignore_axes), (0.5, Morphology(ignore_axes))]


class PublishedView(StrongView):
    """Brightness, contrast, gamma and morphology, as the paper names them; on some images they change nothing."""

    faint = (ImageOnlyTransform,)

    def steps(self, ignore_axes: tuple[int, ...] | None) -> list[tuple[float, ImageOnlyTransform]]:
        contrast = ContrastTransform((0.7, 1.3), preserve_range=True, synchronize_channels=False)
        return [
            (0.8, OnDevice(MultiplicativeBrightnessTransform((0.7, 1.3), False))),
            (0.5, Shift(0.3)),
            (0.5, OnDevice(contrast)),
            (0.3, OnDevice(GammaTransform((0.7, 1.5), 0, False, 1, 1))),
            (0.5, Morphology(ignore_axes)),
        ]
