"""Changes of intensities on the training device, none of which waits for it.

Each transform receives ``image=(C, *P)`` and changes it in place, every channel on its own. Random numbers are drawn in
main memory.
"""

from __future__ import annotations

import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from torch import Tensor


def uniform(low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand(()))


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
        from monai.networks.layers.simplelayers import gaussian_1d, separable_filtering  # takes seconds to import

        channels = torch.where(params["apply_to_channel"])[0].tolist()
        for channel, sigmas in zip(channels, params["sigmas"], strict=True):
            kernels = [
                gaussian_1d(torch.tensor(float(sigma)), approx="sampled").to(img.device, non_blocking=True)
                for sigma in sigmas
            ]
            img[channel] = separable_filtering(img[None, channel : channel + 1], kernels, mode="replicate")[0, 0]
        return img


class RelativeNoise(ImageOnlyTransform):
    """Gaussian noise with a standard deviation of so many times that of each channel.

    Args:
        sigma: lower and upper limit of that factor.
    """

    def __init__(self, sigma: tuple[float, float]) -> None:
        super().__init__()
        self.sigma = sigma

    def get_parameters(self, **data_dict: Tensor) -> dict:
        return {"sigmas": [uniform(*self.sigma) for _ in data_dict["image"]]}

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        for channel, sigma in zip(img, params["sigmas"], strict=True):
            channel += torch.randn_like(channel) * (sigma * channel.std(correction=0))
        return img


class LocalBrightness(ImageOnlyTransform):
    """A smooth bump, brighter or darker, as a bias field makes it: a Gaussian of space, for each channel another.

    Args:
        amplitude: limits of the bump's height, in standard deviations of the channel.
        width: limits of its standard deviation, as a share of the patch's edge.
    """

    def __init__(self, amplitude: tuple[float, float], width: tuple[float, float]) -> None:
        super().__init__()
        self.amplitude, self.width = amplitude, width

    def get_parameters(self, **data_dict: Tensor) -> dict:
        image, bumps = data_dict["image"], []
        for _ in image:
            signed = uniform(*self.amplitude) * (1 if uniform() < 0.5 else -1)
            bumps.append((signed, [(uniform(), uniform(*self.width)) for _ in image.shape[1:]]))
        return {"bumps": bumps}

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        for channel, (height, axes) in zip(img, params["bumps"], strict=True):
            bump = channel.std(correction=0) * height
            for axis, (centre, width) in enumerate(axes):
                place = torch.linspace(0, 1, channel.shape[axis], device=img.device, dtype=img.dtype)
                line = (-0.5 * ((place - centre) / width) ** 2).exp()
                bump = bump * line.view([-1 if a == axis else 1 for a in range(channel.ndim)])
            channel += bump
        return img


class HistogramShift(ImageOnlyTransform):
    """A random, never falling, piecewise linear map of each channel's range onto itself.

    As MONAI's RandHistogramShift, which waits for the device.

    Args:
        points: control points, the two ends of the range among them.
    """

    def __init__(self, points: int) -> None:
        super().__init__()
        self.points = points

    def get_parameters(self, **data_dict: Tensor) -> dict:
        maps = []
        for _ in data_dict["image"]:
            heights = torch.linspace(0, 1, self.points)
            for i in range(1, self.points - 1):
                heights[i] = uniform(float(heights[i - 1]), float(heights[i + 1]))
            maps.append(heights)
        return {"maps": maps}

    def _apply_to_image(self, img: Tensor, **params) -> Tensor:
        for channel, heights in zip(img, params["maps"], strict=True):
            low, high = torch.aminmax(channel)
            place = (channel - low) / (high - low).clamp(min=1e-7) * (self.points - 1)
            left = place.long().clamp(0, self.points - 2)
            heights = heights.to(img.device, img.dtype, non_blocking=True)
            channel.copy_(low + (high - low) * torch.lerp(heights[left], heights[left + 1], place - left))
        return img
