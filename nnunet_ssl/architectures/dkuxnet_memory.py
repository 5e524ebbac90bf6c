"""How much memory a training step of DKUXNet needs for its activations, from the numbers in the plans alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nnunet_ssl.architectures.dkuxnet import LAST_KERNEL, choose_kmax_levels
from nnunet_ssl.architectures.kmax import mixes_images
from nnunet_ssl.architectures.uxnet import EXPANSION, Convolution, Levels

BYTES = 4
MIXED_PRECISION = 0.55  # of the memory in float32; norms and responses stay in float32


def saved_floats(
    patch_size: Sequence[int],
    n_stages: int,
    features_per_stage: int | Sequence[int],
    conv_op: Convolution,
    kernel_sizes: Any,
    strides: Any,
    *,
    input_channels: int = 1,
    queries: int = 32,
    query_width: int = 256,
    pixel_widths: Sequence[int] = (64, 32),
    kmax_levels: Sequence[int] | None = None,
    layers_per_level: int = 2,
    mask_stride: int = 1,
    ux_blocks: int = 2,
    norms: str = "independent",
    norm_op: type[Any] | None = None,
    recompute: bool = False,
    taught: bool = True,
    **others: Any,
) -> dict[str, float]:
    """Floats per image that a training forward keeps for its backward pass, by part of the network.

    Args:
        patch_size: P.
        taught: whether the image has a loss on the responses of the k-means layers.
        others: further arguments of :class:`nnunet_ssl.architectures.dkuxnet.DKUXNet`, which change little.

    Returns:
        ``unet`` (encoder and decoder), ``kmax`` (all layers) and ``predictor`` (of the last responses).

    Raises:
        ValueError: as the network.
    """
    levels = Levels(n_stages, features_per_stage, conv_op, kernel_sizes, strides)
    levels.check_size(patch_size)
    f = levels.features
    voxels = [prod(patch_size) / prod(n for s in levels.strides[: level + 1] for n in s) for level in range(n_stages)]
    first, second = pixel_widths
    one_batch = mixes_images(norms, norm_op)
    in_layers = recompute and not one_batch

    kmax = 0.0
    for level in choose_kmax_levels(levels, kmax_levels):
        of_features = 0 if in_layers else f[level]
        maps_of_width = 3.0 if in_layers else 4.0  # projection, pixels, values
        if taught or one_batch:
            maps_of_width += 2.5 if in_layers else 7.5
        of_voxel = of_features + maps_of_width * query_width + 2 * queries + 2  # the last is an index of eight bytes
        of_queries = 45 * query_width * queries + 24 * queries**2
        kmax += layers_per_level * (voxels[level] * of_voxel + of_queries)
    coarse = voxels[0] / prod(mask_stride if k > 1 else 1 for k in levels.enlarged(0, LAST_KERNEL))
    embedding = second if in_layers else 3 * f[0] + 3 * first + 3 * second
    predictor = coarse * (embedding + queries) + voxels[0] * (1 if recompute else 2) * queries
    return {"unet": unet_floats(f, voxels, input_channels, ux_blocks, recompute), "kmax": kmax, "predictor": predictor}


def unet_floats(
    features: Sequence[int], voxels: Sequence[float], input_channels: int, ux_blocks: int, recompute: bool
) -> float:
    """The part of encoder and decoder, of features and voxels per level."""
    last = len(features) - 1
    floats = input_channels * voxels[0]
    for level, width in enumerate(features):
        below = input_channels if level == 0 else features[level - 1]
        maps = 5 if below != width else 4  # convolutions, the first activation and the result
        if recompute:  # convolutions alone; and the bottleneck, of which no concatenation holds a copy
            maps = 1 if level == 0 else maps - (2 if level < last else 1)
        floats += voxels[level] * maps * width
        if level < last:  # concatenation and residual block of the decoder
            floats += voxels[level] * (2 + (4 if recompute else 5)) * width
        if level > 0:  # trunk: blocks of input and convolution, norm, two hidden maps and update; norms around them
            floats += voxels[level] * ux_blocks * (2 if recompute else 3 + 2 * EXPANSION + 1) * below
            floats += voxels[level] * (2 + (level < last) + (level == 1)) * below
    return floats


def training_bytes(
    images: int, patch_size: Sequence[int], *, half: bool = False, untaught: int = 0, **architecture: Any
) -> float:
    """Bytes of activations in a step; weights, their gradients and the optimiser's state come on top.

    Args:
        images: inputs of the network, two views of each labelled and unlabelled patch.
        patch_size: P.
        half: mixed precision.
        untaught: how many of them have no loss on the responses of the k-means layers.
        architecture: see :func:`saved_floats`.
    """
    taught, others = (sum(saved_floats(patch_size, taught=t, **architecture).values()) for t in (True, False))
    floats = (images - untaught) * taught + untaught * others
    return floats * BYTES * (MIXED_PRECISION if half else 1.0)
