"""Hyper-parameters of SS-Net (MICCAI 2022), with what its code trains with."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_ssl.training.settings import setting
from nnunet_ssl.training.streams import SemiSupervisedHyperparameters


@dataclass(frozen=True)
class SSNetHyperparameters(SemiSupervisedHyperparameters):
    smoothness_weight: float = setting(
        1.0,
        "weight of the smoothness at the end of its ramp",
        symbol="w_s",
        source="1 in 3D, 0.1 in 2D, released code",
        low=0.0,
    )
    separation_weight: float = setting(
        0.1,
        "weight of the class separation at the end of its ramp",
        symbol="w_c",
        source="a tenth of the smoothness, released code",
        low=0.0,
    )
    rampup_fraction: float = setting(
        0.4,
        "fraction of training over which the weights rise",
        symbol="R",
        source="0.4 in 3D, 1 in 2D, released code",
        low=1e-6,
        high=1.0,
    )
    noise_rms: float = setting(
        0.01,
        "root mean square of the adversarial noise in each patch, in normalised intensities",
        symbol=r"\epsilon",
        source="a norm of 10, which is 0.00998 per voxel of 112 x 112 x 80; 6, 0.0234, in 2D; released code",
        low=1e-6,
        high=10.0,
    )
    iterations: int = setting(
        1, "power iterations that find the noise, a forward and a backward each", source="1, released code", low=1,
        high=10,
    )  # fmt: skip
    distance: str = setting(
        "squared",
        "between the predictions: Dice with squared sums, 0 where they are equal, or plain ones, which sharpens, too",
        source="squared in 2D, plain in 3D, released code; recommended",
        choices=("squared", "plain"),
    )
    memory_size: int = setting(
        32, "features of each class that are remembered", symbol="M", source="32, released code", low=2
    )
    remember: str = setting(
        "highest",
        "which: those that the selector of the class scores highest or lowest",
        source="lowest, released code, whose comment says highest; recommended",
        choices=("highest", "lowest"),
    )
    separation_voxels: int = setting(
        20000,
        "voxels of each stream that enter the class separation at most, as many of each class",
        source="all, released code; recommended",
        low=2,
    )
    projection_size: int = setting(32, "length of a remembered feature", symbol="D", source="32, released code", low=2)
