"""UniMatch as released, where that differs from the recommended defaults."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

from nnunet_ssl.data.intensity import BlurOnDevice, OnDevice
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.trainers.unimatch.settings import UniMatchHyperparameters
from nnunet_ssl.trainers.unimatch.trainer import nnUNetTrainerUniMatch
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.recipe import AS_PUBLISHED, Optimization, Recipe
from nnunet_ssl.training.settings import other_default

WEAK = ("labeled.weak", "unlabeled.weak", "unlabeled.strong")
SSL4MIS = replace(
    AS_PUBLISHED,
    optimization=Optimization("sgd", rate=0.01, weight_decay=1e-4, momentum=0.9, nesterov=False),
    augmented=True,  # geometry: rotations and mirroring
    epochs=124,  # of nnU-Net's 250 steps: 300 epochs of 103, 30 900 in all
    batch_size=2,  # of the left atrium in every comparison of the field; UniMatch is released in 2D alone
    batch_size_2d=12,  # labelled and unlabelled each
)
HALVED: Recipe = replace(  # L / 2 at 0.01 and 1e-4 takes the same steps as L at these
    SSL4MIS, optimization=replace(SSL4MIS.optimization, rate=0.005, weight_decay=2e-4)
)


@dataclass(frozen=True)
class UniMatchPaperHyperparameters(UniMatchHyperparameters):
    guard: bool = other_default(UniMatchHyperparameters, "guard", False, source="off, as published")
    teacher: str = other_default(UniMatchHyperparameters, "teacher", "none", source="none, released code")
    rampup_fraction: float = other_default(UniMatchHyperparameters, "rampup_fraction", 0.0, source="0, released code")
    cutmix_probability: float = other_default(
        UniMatchHyperparameters, "cutmix_probability", 0.5, source="0.5, released code"
    )
    cutmix_smallest: float = other_default(UniMatchHyperparameters, "cutmix_smallest", 0.02, source="released code")
    cutmix_largest: float = other_default(UniMatchHyperparameters, "cutmix_largest", 0.4, source="released code")
    pseudo_loss: str = other_default(UniMatchHyperparameters, "pseudo_loss", "dice", source="dice, released code")


class JitterAndBlur(StrongView):
    """Brightness and contrast of ColorJitter(0.5, 0.5) and blur; of one channel, hue and saturation change nothing."""

    faint = (ImageOnlyTransform,)  # as published, some views change nothing

    def steps(self, ignore_axes: tuple[int, ...] | None) -> list[tuple[float, ImageOnlyTransform]]:
        brightness = MultiplicativeBrightnessTransform(BGContrast((0.5, 1.5)), False)
        contrast = ContrastTransform(BGContrast((0.5, 1.5)), preserve_range=True, synchronize_channels=False)
        return [
            (0.8, OnDevice(brightness)),
            (0.8, OnDevice(contrast)),
            (0.5, BlurOnDevice(GaussianBlurTransform((0.1, 2.0), False, False, 1.0))),
        ]


class nnUNetTrainerUniMatch_paper(nnUNetTrainerUniMatch):
    """No teacher, no ramp, smaller boxes, Dice alone; 12 and 12 slices, SGD at 0.01 with momentum 0.9, 30 900 steps.

    Labelled patches have geometric augmentation alone, strong views brightness, contrast and blur. No deep supervision,
    clipping, mixed precision or mirrored prediction. What the settings block names under "training" wins.
    """

    Hyperparameters: ClassVar[type] = UniMatchPaperHyperparameters
    hyperparameters: UniMatchPaperHyperparameters
    card: ClassVar[MethodCard] = replace(
        nnUNetTrainerUniMatch.card,
        predicts="the network",
        extra_memory="two batches more",
    )
    recipe: ClassVar[Recipe] = HALVED
    views: ClassVar[tuple[str, ...]] = WEAK
    labeled_view: ClassVar[str] = "weak"

    def make_strong_view(self, anisotropic: bool) -> JitterAndBlur:
        return JitterAndBlur((0,) if anisotropic else None, masked_channels=self.streams.masked_channels)
