"""Losses of our own at every resolution of nnU-Net's deep supervision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor
from torch.nn import functional as F


def finest(outputs: Any) -> Any:
    """The full-resolution entry of what a network or nnU-Net's loader gives with or without deep supervision."""
    return outputs[0] if isinstance(outputs, (list, tuple)) else outputs


def split_outputs(outputs: Any, count: int) -> tuple[Any, Any]:
    """(the first ``count`` samples, the others) of what a network returns with or without deep supervision."""
    if isinstance(outputs, (list, tuple)):
        return [o[:count] for o in outputs], [o[count:] for o in outputs]
    return outputs[:count], outputs[count:]


def resize_to(volume: Tensor | None, outputs: Sequence[Tensor]) -> list[Tensor | None]:
    """A map (B, 1, *P), nearest neighbour, at the resolution of each output; as nnU-Net downsamples its targets."""
    if volume is None:
        return [None] * len(outputs)
    floats = volume.float()
    return [F.interpolate(floats, size=o.shape[2:], mode="nearest-exact").to(volume.dtype) for o in outputs]


def deep_supervised(
    loss: Callable[..., Tensor], weights: Sequence[float] | None, outputs: Any, *maps: Tensor | list[Tensor] | None
) -> Tensor:
    """loss(output, *maps) summed over the resolutions with nnU-Net's weights.

    Args:
        loss: of full-resolution logits (B, K, *P) and maps (B, 1, *P).
        weights: one per resolution, the finest first; unused without deep supervision.
        outputs: logits, or a list of them.
        maps: each a list, or a full-resolution map or ``None`` to be given at every resolution.
    """
    if not isinstance(outputs, (list, tuple)):
        return loss(outputs, *(finest(m) for m in maps))
    lists = [m if isinstance(m, (list, tuple)) else resize_to(m, outputs) for m in maps]
    total: Tensor = DeepSupervisionWrapper(loss, weights)(outputs, *lists)
    return total
