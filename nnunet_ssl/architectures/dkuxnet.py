"""DKUXNet: a 3D UX-Net whose voxels are assigned to queries, and whose queries are classified.

Source: Wu, Li & Zhang, "Semi-supervised medical image segmentation via query distribution consistency" (ISBI 2024),
Sec. 2.2, and the network published with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import log2, prod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nnunet_ssl.architectures.kmax import (
    KMaxLayer,
    MaskPredictor,
    batch_norms,
    independent_norms,
    mixes_images,
    pointwise,
)
from nnunet_ssl.architectures.precision import float32_region
from nnunet_ssl.architectures.recompute import maybe_recompute
from nnunet_ssl.architectures.uxnet import Convolution, Levels, UXNetDecoder, UXNetEncoder, check_unused

LAST_KERNEL = 5  # of the mask predictors' depth-wise convolutions
HIDDEN = 64  # of the network that classifies queries
CLASS_HEADS = ("shared", "flat")
NORMS = ("independent", "batch")
STRIDES = (8, 4)  # of the maps that update the centres, published network; k-means mask transformer: 32, 16, 8
LEVELS_KEY = "levels_of_kmax_layers"  # in a state_dict; earlier versions wrote none


class DKUXNetOutput(NamedTuple):
    """What a training forward returns."""

    logits: Tensor
    """S (B, K, *P)."""
    responses: Tensor
    """R (B, N, *P), float32; its softmax over N is the soft assignment of voxels to queries."""
    intermediate: list[Tensor]
    """R of every k-means layer (B, N, *S_l), float32; without a loss of their own, their heads learn nothing."""


class ClassHead(nn.Module):
    """Class logits of the queries, (B, C, N) -> (B, N, K).

    Args:
        width, queries, num_classes: C, N and K.
        kind: "shared": the same network for each query, as the paper has it. "flat", released: one network for all of
            them together, in which the order of the queries matters.
    """

    def __init__(self, width: int, queries: int, num_classes: int, kind: str = "shared") -> None:
        super().__init__()
        if kind not in CLASS_HEADS:
            raise ValueError(f"class_head must be one of {', '.join(CLASS_HEADS)}, got {kind!r}")
        self.flat = kind == "flat"
        inputs, outputs = (width * queries, num_classes * queries) if self.flat else (width, num_classes)
        self.layers = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs))

    def forward(self, centres: Tensor) -> Tensor:
        if self.flat:
            return self.layers(centres.mT.flatten(1)).unflatten(1, (centres.shape[2], -1))
        return self.layers(centres.mT)


def classify_voxels(responses: Tensor, class_logits: Tensor) -> Tensor:
    """S_k = sum over queries of their class logit times the softmax of R over queries; in float32.

    A voxel's logits lie between the smallest and the largest of the queries' logits.

    Args:
        responses: R (B, N, *S).
        class_logits: (B, N, K).

    Returns:
        (B, K, *S).
    """
    with float32_region(responses.device):
        assignment = responses.float().softmax(1).flatten(2)
        return (class_logits.float().mT @ assignment).unflatten(2, responses.shape[2:])


class DKUXNet(nn.Module):
    """Plans may name ``nnunet_ssl.architectures.dkuxnet.DKUXNet``; the first arguments are nnU-Net's plans keys.

    A forward in training mode returns :class:`DKUXNetOutput`, one in evaluation mode logits (B, K, *P).

    Args:
        input_channels, num_classes: C_in and K.
        n_stages, features_per_stage, conv_op, kernel_sizes, strides: see :class:`nnunet_ssl.architectures.uxnet.UXNet`.
        deep_supervision: the forward returns a list of the logits alone, for trainers that know nothing of queries; the
            k-means assignment is not learned by them. nnU-Net switches ``decoder``'s.
        norm_op, norm_op_kwargs: nnU-Net's plans keys, for maps in the k-means layers and mask predictors.
        queries: N, number of queries.
        query_width: C, of the centres; keys C / 2, feed-forward network 8 C.
        attention_heads: of the attention among queries.
        pixel_widths: of the last mask predictor's embedding.
        kmax_levels: levels of the decoder whose maps update the centres, the deepest first; S - 1 is the bottleneck.
            ``None``: those of stride 8 and 4, or the nearest, see :func:`choose_kmax_levels`. Weights say which theirs
            are, and without levels named here the network takes them over.
        layers_per_level: k-means layers on each of these maps.
        response_scale: initial scale of the responses; 0.1 as released, which starts slowly.
        class_head: see :class:`ClassHead`.
        norms: "independent", see :func:`independent_norms`, or "batch" as released.
        mask_stride: 2 computes the responses at half the resolution.
        ux_blocks: per stage of the encoder.
        recompute: keep no activations of encoder and decoder but the outputs of convolutions and, with independent
            norms, none of the last pixel embedding; ``None``: on a GPU alone.
        unused: keys of nnU-Net's plans that mean nothing here.

    Raises:
        ValueError: numbers that do not fit together; in ``forward`` a patch size that the strides do not divide.
        TypeError: an unknown key.
    """

    answers_with_logits_alone: ClassVar[bool] = False  # in training; most trainers can do nothing with more

    def __init__(
        self,
        input_channels: int,
        n_stages: int,
        features_per_stage: int | Sequence[int],
        conv_op: Convolution,
        kernel_sizes: Any,
        strides: Any,
        num_classes: int,
        deep_supervision: bool = False,
        *,
        norm_op: type[nn.Module] | None = None,
        norm_op_kwargs: dict[str, Any] | None = None,
        queries: int = 32,
        query_width: int = 256,
        attention_heads: int = 8,
        pixel_widths: Sequence[int] = (64, 32),
        kmax_levels: Sequence[int] | None = None,
        layers_per_level: int = 2,
        response_scale: float = 1.0,
        class_head: str = "shared",
        norms: str = "independent",
        mask_stride: int = 1,
        ux_blocks: int = 2,
        recompute: bool | None = False,
        **unused: Any,
    ) -> None:
        super().__init__()
        check_unused(unused)
        if norms not in NORMS:
            raise ValueError(f"norms must be one of {', '.join(NORMS)}, got {norms!r}")
        if query_width % (2 * attention_heads):
            raise ValueError(
                f"query_width {query_width} must be divisible by twice the attention_heads, {attention_heads}"
            )
        if mask_stride not in (1, 2):
            raise ValueError(f"mask_stride must be 1 or 2, got {mask_stride}")
        levels = Levels(n_stages, features_per_stage, conv_op, kernel_sizes, strides)
        kinds = batch_norms(conv_op) if norms == "batch" else independent_norms(norm_op, **(norm_op_kwargs or {}))
        self._one_batch, self.recompute = mixes_images(norms, norm_op), recompute
        self.encoder = UXNetEncoder(input_channels, levels, ux_blocks, recompute)
        self.decoder = UXNetDecoder(levels, recompute=recompute)
        self.decoder.deep_supervision = deep_supervision
        options: dict[str, Any] = {
            "heads": attention_heads,
            "conv_op": conv_op,
            "norms": kinds,
            "scale": response_scale,
            "recompute": False if self._one_batch else recompute,  # a second pass would enter the statistics twice
        }
        self._new_layer: Callable[..., KMaxLayer] = partial(KMaxLayer, width=query_width, **options)
        self._layers_per_level, self._levels_are_named = layers_per_level, kmax_levels is not None
        self._set_levels(choose_kmax_levels(levels, kmax_levels))
        self.register_load_state_dict_pre_hook(_follow_the_weights)
        self.centres = nn.Parameter(torch.empty(query_width, queries))
        nn.init.trunc_normal_(self.centres)  # cut off at two standard deviations
        self.mask_embedding = nn.Sequential(
            pointwise(nn.Conv1d, query_width, query_width), kinds.query(query_width), nn.GELU()
        )
        kernel = levels.enlarged(0, LAST_KERNEL)
        first, second = pixel_widths
        self.predictor = MaskPredictor(
            levels.features[0],
            query_width,
            kernel,
            (first, second),
            conv_op,
            kinds,
            response_scale,
            [mask_stride if k > 1 else 1 for k in kernel],
            options["recompute"],
        )
        self.class_head = ClassHead(query_width, queries, num_classes, class_head)

    def _set_levels(self, chosen: list[int]) -> None:
        """Fresh k-means layers on the maps of these levels."""
        levels, self.kmax_levels = self.encoder.levels, chosen
        self.kmax_layers = nn.ModuleList(
            nn.ModuleList(
                self._new_layer(levels.features[level], levels.enlarged(level, LAST_KERNEL))
                for _ in range(self._layers_per_level)
            )
            for level in chosen
        )
        self.register_buffer(LEVELS_KEY, torch.tensor(chosen))

    def forward(self, images: Tensor, taught: int | None = None) -> Tensor | list[Tensor] | DKUXNetOutput:
        """(B, C_in, *P) -> S, [S] or S with all responses; see the class.

        Args:
            taught: so many images, the first, have a loss on the responses of the k-means layers; the other images'
                responses there get no gradient, which saves their backward pass. ``None``, and with batch norms: all.
        """
        if self._one_batch:
            taught = None
        *skips, bottleneck = self.encoder(images)
        maps = [*reversed(self.decoder([*skips, bottleneck])), bottleneck]  # by level
        centres, intermediate = self.centres.expand(len(images), -1, -1), []
        for level, layers in zip(self.kmax_levels, self.kmax_layers, strict=True):
            for layer in layers:  # type: ignore[attr-defined]
                centres, responses = layer(centres, maps[level], taught)
                intermediate.append(responses)
        responses = self.predictor(maps[0], self.mask_embedding(centres))
        run = maybe_recompute(self.recompute, responses)
        logits = run(classify_voxels, responses, self.class_head(centres)).to(maps[0].dtype)
        if self.decoder.deep_supervision:
            return [logits]
        return DKUXNetOutput(logits, responses, intermediate) if self.training else logits


def choose_kmax_levels(levels: Levels, wanted: Sequence[int] | None = None) -> list[int]:
    """Levels of the decoder that update the centres, the deepest first.

    Args:
        levels: of the plans.
        wanted: ``None``: the one whose stride, the geometric mean over the axes, is nearest 8 in powers of two, and of
            the others the one nearest 4; full resolution, 0, is left out, and the bottleneck, S - 1, is not.

    Raises:
        ValueError: none, full resolution, or levels that do not exist.
    """
    possible = range(1, len(levels))
    if wanted is None:
        strides = [
            log2(prod(n for s in levels.strides[: level + 1] for n in s)) / levels.dimensions for level in possible
        ]
        left = [*possible]
        for stride in STRIDES[: len(left)]:
            left.remove(min(left, key=lambda level: abs(strides[level - 1] - log2(stride))))
        return sorted(set(possible) - set(left), reverse=True)
    if not wanted or not set(wanted) <= set(possible):
        raise ValueError(
            f"kmax_levels must lie between 1 and {len(levels) - 1} (the bottleneck) and there must be one, got {wanted}"
        )
    return sorted(set(wanted), reverse=True)


def levels_of_weights(weights: Mapping[str, Tensor], built: DKUXNet, prefix: str = "") -> list[int]:
    """The levels on whose maps the k-means layers of a state_dict work.

    Version 0.1.0 wrote none. It took those named in the plans or else S - 2 and S - 3, level 0 excluded.
    """
    if prefix + LEVELS_KEY in weights:
        return [int(level) for level in weights[prefix + LEVELS_KEY].tolist()]
    stages = len(built.encoder.levels)
    return built.kmax_levels if built._levels_are_named else [*range(stages - 2, max(0, stages - 4), -1)]


def _follow_the_weights(net: DKUXNet, weights: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Before weights are loaded: k-means layers on their levels, which plans without ``kmax_levels`` leave open."""
    levels = levels_of_weights(weights, net, prefix)
    if levels != net.kmax_levels:
        if net._levels_are_named:
            raise ValueError(
                f"these weights have k-means layers on the levels {levels}, but kmax_levels is {net.kmax_levels}"
            )
        net._set_levels(levels)
        net.to(net.centres.device)
    weights.setdefault(prefix + LEVELS_KEY, torch.tensor(levels))


__all__ = ["CLASS_HEADS", "NORMS", "ClassHead", "DKUXNet", "DKUXNetOutput", "classify_voxels"]
