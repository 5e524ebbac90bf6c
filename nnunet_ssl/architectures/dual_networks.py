"""A plain and a residual U-Net side by side, which predict together.

Source: Lu et al., "Semi-supervised medical image segmentation via dual networks", Sec. 2; there V-Net and ResNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn

from nnunet_ssl.architectures.recompute import maybe_recompute
from nnunet_ssl.architectures.resvnet import ResVNet
from nnunet_ssl.architectures.skcdf import Logits, drop_channels
from nnunet_ssl.architectures.unet_decoder import feature_maps
from nnunet_ssl.architectures.vnet import VNet

PLAIN, RESIDUAL, VNET, RESVNET = (
    f"{c.__module__}.{c.__name__}" for c in (PlainConvUNet, ResidualEncoderUNet, VNet, ResVNet)
)
RESIDUAL_BLOCKS = (1, 3, 4, 6)  # per stage, the last number for all further stages; as nnU-Net's planner
RESNET34_BLOCKS = (0, 3, 4, 6, 3)  # the same of a residual V-Net, released code
VNET_CONVOLUTIONS = (1, 2, 3)  # the same of a V-Net
LEAST_PROBABILITY = 1e-6
PREDICTORS = ("mean", "student", "teacher")


class DualOutput(NamedTuple):
    """What one training forward returns, of the labelled patches first and then of the unlabelled ones, B in all."""

    student: Logits
    """(B, K, *P), or a list with deep supervision."""
    teacher: Logits
    """Like ``student``."""
    student_features: Tensor
    """(B, F, *P), what the student's last 1x1 convolution sees."""
    teacher_features: Tensor
    """Like ``student_features``."""


class DualNet(nn.Module):
    """Two U-Nets on the same patches. ``forward(images)`` predicts; ``forward(labeled, unlabeled)`` is a training step.

    Either U-Net, taken out of the state dict (``student.`` or ``teacher.``), is one of nnU-Net's own.

    Args:
        student, teacher: U-Nets of nnU-Net's library with a UNetDecoder.
        predict_with: "mean" of both class probabilities, "student" or "teacher".
        student_dropout, teacher_dropout: of whole channels while training, at (bottleneck, last features).
        sequential: keep the activations of one encoder or decoder at a time: each of the four is run again when the
            gradient reaches it. Same values and gradients, dropout included.

    Raises:
        ValueError: an unknown ``predict_with``.
    """

    region_based: Tensor

    def __init__(
        self,
        student: PlainConvUNet | ResidualEncoderUNet | VNet,
        teacher: PlainConvUNet | ResidualEncoderUNet | VNet,
        *,
        predict_with: str = "mean",
        student_dropout: tuple[float, float] = (0.0, 0.0),
        teacher_dropout: tuple[float, float] = (0.0, 0.0),
        sequential: bool = False,
    ) -> None:
        super().__init__()
        if predict_with not in PREDICTORS:
            raise ValueError(f"predict_with must be one of {', '.join(PREDICTORS)}, got {predict_with!r}")
        self.student, self.teacher = student, teacher
        self.predict_with, self.sequential = predict_with, sequential
        self.student_dropout, self.teacher_dropout = student_dropout, teacher_dropout
        # part of the checkpoint, since nnU-Net builds a network without telling it whether its outputs are regions
        self.register_buffer("region_based", torch.tensor(False))

    @classmethod
    def from_plans(
        cls,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
        input_channels: int,
        output_channels: int,
        deep_supervision: bool,
        *,
        channel_dropout: float = 0.0,
        **options: Any,
    ) -> DualNet:
        """Student: residual, teacher: plain; one is the plans' own, the other has its features, strides and kernels.

        Args:
            channel_dropout: of the teacher's bottleneck and of the last features of both.
            options: of the constructor.

        Raises:
            NotImplementedError: another architecture in the plans.
        """
        blueprints = counterparts(arch_class_name, arch_kwargs)
        student, teacher = (
            get_network_from_plans(
                name,
                kwargs,
                [k for k in arch_kwargs_req_import if k in kwargs],
                input_channels,
                output_channels,
                deep_supervision=deep_supervision,
            )
            for name, kwargs in blueprints
        )
        rate = channel_dropout
        return cls(student, teacher, student_dropout=(0.0, rate), teacher_dropout=(rate, rate), **options)

    @property
    def decoder(self) -> DualNet:
        """Where nnU-Net switches ``deep_supervision``, here for both networks."""
        return self

    @property
    def deep_supervision(self) -> bool:
        return bool(self.student.decoder.deep_supervision)

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        self.student.decoder.deep_supervision = self.teacher.decoder.deep_supervision = enabled

    def forward(self, images: Tensor, unlabeled: Tensor | None = None) -> Any:
        """Prediction, or a training step where unlabelled images are given.

        Args:
            images: (B, C, *P); the labelled ones (B_L, C, *P) in a training step.
            unlabeled: (B_U, C, *P).

        Returns:
            Logits (B, K, *P), or a list with deep supervision. In a training step :class:`DualOutput`.
        """
        if unlabeled is None:
            return self._predict(images)
        images = torch.cat((images, unlabeled))
        student, student_features = self._run(self.student, images, self.student_dropout)
        teacher, teacher_features = self._run(self.teacher, images, self.teacher_dropout)
        return DualOutput(student, teacher, student_features, teacher_features)

    def _run(self, unet: nn.Module, images: Tensor, dropout: tuple[float, float]) -> tuple[Logits, Tensor]:
        rates = dropout if self.training else (0.0, 0.0)
        return logits_and_features(unet, images, *rates, recompute=self.sequential)

    def _predict(self, images: Tensor) -> Logits:
        if self.predict_with != "mean":
            logits: Logits = (self.student if self.predict_with == "student" else self.teacher)(images)
            return logits
        student, teacher = self.student(images), self.teacher(images)
        if isinstance(student, Tensor):
            return mean_logits(student, teacher, self.region_based)
        return [mean_logits(s, t, self.region_based) for s, t in zip(student, teacher, strict=True)]


def logits_and_features(
    unet: Any, images: Tensor, bottleneck_dropout: float = 0.0, feature_dropout: float = 0.0, recompute: bool = False
) -> tuple[Logits, Tensor]:
    """What a U-Net returns for images (B, C, *P), and the features (B, F, *P) that its last 1x1 convolution sees.

    With ``recompute``, encoder and decoder keep no activations but are run again when the gradient reaches them.
    """
    run = maybe_recompute(recompute, images, draws=True)
    *skips, bottleneck = run(unet.encoder, images)
    result: tuple[Logits, Tensor] = run(
        _decode, unet.decoder, skips, drop_channels(bottleneck, bottleneck_dropout), feature_dropout
    )
    return result


def _decode(decoder: Any, skips: list[Tensor], features: Tensor, dropout: float) -> tuple[Logits, Tensor]:
    maps = feature_maps(decoder, [*skips, features])
    maps[-1] = drop_channels(maps[-1], dropout)
    if not decoder.deep_supervision:
        return decoder.seg_layers[-1](maps[-1]), maps[-1]
    return [head(x) for head, x in zip(decoder.seg_layers, maps, strict=True)][::-1], maps[-1]


def mean_logits(first: Tensor, second: Tensor, region_based: Tensor | bool = False) -> Tensor:
    """Logits whose probabilities are the mean of those of two networks, a new tensor in float32.

    Args:
        first, second: (B, K, *S); of exclusive classes, or of regions.
        region_based: whether the channels are regions; a tensor, so that the device is not waited for.

    Returns:
        (B, K, *S): the log of the mean softmax, at least ln 1e-6; of regions the logit of the mean sigmoid, within that
        of 1e-6 and 1 - 1e-6.
    """
    first, second = first.float(), second.float()
    classes = torch.logaddexp(first.log_softmax(1), second.log_softmax(1)) - math.log(2)
    classes = classes.clamp(min=math.log(LEAST_PROBABILITY))
    regions = torch.logit((first.sigmoid() + second.sigmoid()) / 2, eps=LEAST_PROBABILITY)
    return torch.where(torch.as_tensor(region_based, device=first.device), regions, classes)


def counterparts(arch_class_name: str, arch_kwargs: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(class name, arguments) of the residual and of the plain U-Net that share features, strides and kernels.

    Args:
        arch_class_name, arch_kwargs: of one of them, from the architecture block of nnU-Net's plans; that one is kept.
            The other gets two convolutions per stage (plain), or 1, 3, 4, 6, 6, ... blocks and one convolution per
            decoder stage (residual), as nnU-Net's planners choose them. Beside a V-Net stands a residual one with the
            blocks of ResNet-34 and the same decoder, beside that a V-Net, as in the authors' code.

    Raises:
        NotImplementedError: another architecture.
    """
    kind = arch_class_name.rsplit(".", 1)[-1]
    stages = arch_kwargs.get("n_stages", 0)
    own = ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder", "nonlin_first", "block",
           "bottleneck_channels", "stem_channels")  # fmt: skip
    shared = {key: value for key, value in arch_kwargs.items() if key not in own}
    decoder = {key: arch_kwargs[key] for key in ("n_conv_per_stage_decoder",) if key in arch_kwargs}
    if kind == "PlainConvUNet":
        blocks = repeated(RESIDUAL_BLOCKS, stages)
        residual = {**shared, "n_blocks_per_stage": blocks, "n_conv_per_stage_decoder": [1] * (stages - 1)}
        return [(RESIDUAL, residual), (arch_class_name, arch_kwargs)]
    if kind == "ResidualEncoderUNet":
        plain = {**shared, "n_conv_per_stage": [2] * stages, "n_conv_per_stage_decoder": [2] * (stages - 1)}
        return [(arch_class_name, arch_kwargs), (PLAIN, plain)]
    if kind == "VNet":
        return [
            (RESVNET, {**shared, **decoder, "n_blocks_per_stage": repeated(RESNET34_BLOCKS, stages)}),
            (arch_class_name, arch_kwargs),
        ]
    if kind == "ResVNet":
        return [
            (arch_class_name, arch_kwargs),
            (VNET, {**shared, **decoder, "n_conv_per_stage": repeated(VNET_CONVOLUTIONS, stages)}),
        ]
    raise NotImplementedError(
        f"Dual Networks need a PlainConvUNet, ResidualEncoderUNet, VNet or ResVNet in the plans, not a {kind}"
    )


def repeated(numbers: Sequence[int], stages: int) -> list[int]:
    """As many as there are stages, the last one for all further stages."""
    return [numbers[min(i, len(numbers) - 1)] for i in range(stages)]


__all__ = ["DualNet", "DualOutput", "counterparts", "logits_and_features", "mean_logits"]
