"""The network of SKCDF: nnU-Net's U-Net with decoupled decoders, complementarity at the bottleneck, balanced heads.

Source: Zhang et al., "Semantic Knowledge Complementarity based Decoupling Framework for Semi-supervised
Class-imbalanced Medical Image Segmentation" (CVPR 2025), Sec. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from math import prod
from typing import Any, NamedTuple, cast

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.complementarity import ChannelAttention, SemanticKnowledgeComplementarity
from nnunet_ssl.architectures.unet_decoder import decoder_alone, feature_maps

Logits = Tensor | list[Tensor]
"""(B, K, *P), or with deep supervision one per resolution, the finest first, as nnU-Net's losses want them."""


class SKCDFOutput(NamedTuple):
    """What one training forward returns. Auxiliary logits are of full resolution, ``None`` without balanced heads."""

    labeled_main: Logits
    """Labelled decoder on the labelled patches, (B_L, K, *P) or a list with deep supervision; Eq. 1."""
    labeled_auxiliary: Tensor | None
    """(B_L, K, *P), its balanced head; Eq. 13."""
    guided_main: Tensor
    """Labelled decoder on the unlabelled patches, (B_U, K, *P), without gradient: the pseudo-labels; Eq. 3."""
    guided_auxiliary: Tensor | None
    """(B_U, K, *P), its balanced head, without gradient; Eq. 15."""
    unlabeled_main: Logits
    """Unlabelled decoder on the unlabelled patches, (B_U, K, *P) or a list with deep supervision; Eq. 3."""
    unlabeled_auxiliary: Tensor | None
    """(B_U, K, *P), its balanced head; Eq. 14."""


class TwoHeadDecoder(nn.Module):
    """A U-Net decoder with a second 1x1 head on its last feature map.

    Args:
        unet_decoder: of the plans' U-Net, without the encoder it usually holds.
        auxiliary_head: 1x1 convolution F_0 -> K, or ``None``.
    """

    def __init__(self, unet_decoder: UNetDecoder, auxiliary_head: nn.Module | None) -> None:
        super().__init__()
        self.unet_decoder = unet_decoder
        # nnU-Net's -pretrained_weights leave out what has this in its name: heads, which fit no other number of classes
        self.seg_layers = nn.ModuleDict({} if auxiliary_head is None else {"auxiliary": auxiliary_head})

    @property
    def auxiliary_head(self) -> nn.Module | None:
        return self.seg_layers["auxiliary"] if len(self.seg_layers) else None

    @property
    def main_head(self) -> nn.Module:
        """1x1 convolution F_0 -> K of the finest resolution, part of ``unet_decoder``."""
        return self.unet_decoder.seg_layers[-1]

    @property
    def deep_supervision(self) -> bool:
        """Whether the main head comes with those of the coarser resolutions; what nnU-Net switches."""
        return self.unet_decoder.deep_supervision

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        self.unet_decoder.deep_supervision = enabled

    def forward(
        self, skips: Sequence[Tensor], deep_supervision: bool, auxiliary: bool, channel_dropout: float = 0.0
    ) -> tuple[Logits, Tensor | None]:
        """Features of the encoder, the bottleneck last -> logits of the main head(s) and of the auxiliary one.

        ``channel_dropout`` acts on the last feature map, the same channels for both heads.
        """
        decoder, maps = self.unet_decoder, feature_maps(self.unet_decoder, skips)
        maps[-1] = drop_channels(maps[-1], channel_dropout)
        balanced = self.auxiliary_head(maps[-1]) if auxiliary and self.auxiliary_head is not None else None
        if not deep_supervision:
            return self.main_head(maps[-1]), balanced
        return [head(x) for head, x in zip(decoder.seg_layers, maps, strict=True)][::-1], balanced


class SKCDFNet(nn.Module):
    """One encoder, a decoder for labelled and one for unlabelled data, two heads each.

    Source: SKCDF, Sec. 3. ``forward(images)`` predicts; ``forward(labeled, unlabeled)`` is the one forward of a
    training step. The encoder, the decoders and all heads have nnU-Net's initialisation, each decoder its own.

    Args:
        unet: a fresh PlainConvUNet, ResidualEncoderUNet or VNet, whose encoder and decoder are taken over.
        patch_size: of the plans; it fixes the bottleneck and with it the shape of the global attention.
        decoupling: off: one decoder serves labelled and unlabelled data.
        complementarity: off: the bottleneck goes to the decoders as it is.
        balanced_heads: off: no auxiliary heads.
        inference_decoder: "unlabeled" or "labeled", the one that predicts.
        channel_dropout: of whole channels, at the bottleneck and at the last feature map, while training.
        guided_dropout: all dropout also on the way to the pseudo-labels.
        attention: further arguments of :class:`SemanticKnowledgeComplementarity`.

    Raises:
        NotImplementedError: a network without nnU-Net's UNetDecoder.
        ValueError: a patch size that the network's strides do not divide; an unknown decoder.
    """

    def __init__(
        self,
        unet: Any,
        patch_size: Sequence[int],
        *,
        decoupling: bool = True,
        complementarity: bool = True,
        balanced_heads: bool = True,
        inference_decoder: str = "unlabeled",
        channel_dropout: float = 0.0,
        guided_dropout: bool = False,
        **attention: Any,
    ) -> None:
        super().__init__()
        decoder = decoder_alone(unet, "SKCDF")
        if inference_decoder not in ("unlabeled", "labeled"):
            raise ValueError(f"inference_decoder must be unlabeled or labeled, got {inference_decoder!r}")
        self.decoupling, self.channel_dropout = decoupling, channel_dropout
        self.inference_decoder, self.guided_dropout = inference_decoder, guided_dropout
        self.encoder: nn.Module = unet.encoder
        self.complementarity: SemanticKnowledgeComplementarity | None = None
        if complementarity:
            channels = unet.encoder.output_channels[-1]
            size = bottleneck_size(unet.encoder.strides, patch_size)
            self.complementarity = SemanticKnowledgeComplementarity(channels, size, **attention)
        self.decoders = nn.ModuleDict({"labeled": two_head_decoder(decoder, balanced_heads, unet.initialize)})
        if decoupling:
            self.decoders["unlabeled"] = deepcopy(self.decoders["labeled"]).apply(unet.initialize)
        if not decoder.deep_supervision:  # no gradient reaches the coarser heads, and DDP would wait for it
            for branch in (self.labeled_decoder, self.unlabeled_decoder):
                branch.unet_decoder.seg_layers[:-1].requires_grad_(False)

    @classmethod
    def from_plans(
        cls,
        arch_class_name: str,
        arch_kwargs: dict[str, Any],
        arch_kwargs_req_import: Sequence[str],
        patch_size: Sequence[int],
        input_channels: int,
        output_channels: int,
        deep_supervision: bool,
        **options: Any,
    ) -> SKCDFNet:
        """From the architecture block of nnU-Net's plans; ``options`` are those of the constructor."""
        unet = get_network_from_plans(
            arch_class_name,
            arch_kwargs,
            arch_kwargs_req_import,
            input_channels,
            output_channels,
            deep_supervision=deep_supervision,
        )
        return cls(unet, patch_size, **options)

    @property
    def labeled_decoder(self) -> TwoHeadDecoder:
        return cast(TwoHeadDecoder, self.decoders["labeled"])

    @property
    def unlabeled_decoder(self) -> TwoHeadDecoder:
        """The labelled decoder itself without decoupling."""
        return cast(TwoHeadDecoder, self.decoders["unlabeled" if self.decoupling else "labeled"])

    @property
    def decoder(self) -> TwoHeadDecoder:
        """The decoder that predicts. Its ``deep_supervision``, which nnU-Net sets, holds for both decoders."""
        return self.unlabeled_decoder if self.inference_decoder == "unlabeled" else self.labeled_decoder

    def forward(self, images: Tensor, unlabeled: Tensor | None = None) -> Any:
        """Prediction, or a training step where unlabelled images are given.

        Args:
            images: (B, C, *P); the labelled ones (B_L, C, *P) in a training step.
            unlabeled: (B_U, C, *P).

        Returns:
            Logits (B, K, *P) of the predicting decoder's main head, or a list with deep supervision; no sample sees
            another one. In a training step :class:`SKCDFOutput`.
        """
        return self._predict(images) if unlabeled is None else self._train_forward(images, unlabeled)

    def _predict(self, images: Tensor) -> Logits:
        *skips, bottleneck = self.encoder(images)
        if self.complementarity is not None:
            # the labelled decoder has learned behind attention between samples: each sample is its own context
            bottleneck = self.complementarity(bottleneck, as_context=self.inference_decoder == "labeled")
        return self.decoder([*skips, bottleneck], self.decoder.deep_supervision, auxiliary=False)[0]

    def _train_forward(self, labeled: Tensor, unlabeled: Tensor) -> SKCDFOutput:
        count, deep, rate = labeled.shape[0], self.decoder.deep_supervision, self._dropout_rate
        features = self.encoder(torch.cat((labeled, unlabeled)))
        *labeled_skips, labeled_bottleneck = (f[:count] for f in features)
        *unlabeled_skips, unlabeled_bottleneck = (f[count:] for f in features)

        of_guided = rate if self.guided_dropout else 0.0
        enriched, guided = self._cross_mode(
            drop_channels(labeled_bottleneck, rate), drop_channels(unlabeled_bottleneck, of_guided)
        )
        labeled_main, labeled_auxiliary = self.labeled_decoder([*labeled_skips, enriched], deep, True, rate)
        with torch.no_grad():  # last: older PyTorch keeps in autocast's cache that a weight was cast without gradient
            guided_main, guided_auxiliary = self.labeled_decoder([*unlabeled_skips, guided], False, True, of_guided)
        own = self._self_mode(drop_channels(unlabeled_bottleneck, rate))
        unlabeled_main, unlabeled_auxiliary = self.unlabeled_decoder([*unlabeled_skips, own], deep, True, rate)
        return SKCDFOutput(
            labeled_main,
            labeled_auxiliary,
            cast(Tensor, guided_main),
            guided_auxiliary,
            unlabeled_main,
            unlabeled_auxiliary,
        )

    @property
    def _dropout_rate(self) -> float:
        return self.channel_dropout if self.training else 0.0

    def _self_mode(self, bottleneck: Tensor) -> Tensor:
        return bottleneck if self.complementarity is None else self.complementarity(bottleneck)

    def _cross_mode(self, labeled: Tensor, unlabeled: Tensor) -> tuple[Tensor, Tensor]:
        if self.complementarity is None:
            return labeled, unlabeled
        return self.complementarity.cross(labeled, unlabeled, self.guided_dropout)


def two_head_decoder(decoder: UNetDecoder, auxiliary: bool, initialize: Any) -> TwoHeadDecoder:
    """Give the decoder of a U-Net, which holds no encoder, an auxiliary head like its own."""
    head = deepcopy(decoder.seg_layers[-1]).apply(initialize) if auxiliary else None
    return TwoHeadDecoder(decoder, head)


def bottleneck_size(strides: Sequence[Sequence[int]], patch_size: Sequence[int]) -> list[int]:
    """The spatial size of the last features of an encoder with these strides per stage."""
    factors = [prod(axis) for axis in zip(*strides, strict=True)]
    if any(p % f for p, f in zip(patch_size, factors, strict=True)):
        raise ValueError(f"patch size {list(patch_size)} is not divisible by the network's strides, {factors} in total")
    return [p // f for p, f in zip(patch_size, factors, strict=True)]


def drop_channels(features: Tensor, rate: float) -> Tensor:
    """Zero whole channels of each sample of (B, C, *S) with probability ``rate``, scale the rest by 1 / (1 - rate)."""
    if rate == 0.0:
        return features
    ones = features.new_ones(*features.shape[:2], *[1] * (features.ndim - 2))
    return features * F.dropout(ones, rate)


__all__ = ["ChannelAttention", "SKCDFNet", "SKCDFOutput", "SemanticKnowledgeComplementarity", "TwoHeadDecoder"]
