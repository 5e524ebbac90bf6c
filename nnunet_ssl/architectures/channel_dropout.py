"""Whole channels of feature maps that are dropped in chosen forwards, without another layer in the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelDropout:
    """Drops channels of what modules receive, for the last samples of a batch alone.

    Survivors are divided by the probability to survive. What is called is the network or its wrapper, as always.

    Args:
        inputs_of: module that receives a map (B, C, *S), or a list of them -> probability of a channel to be dropped.
    """

    def __init__(self, inputs_of: Mapping[nn.Module, float]) -> None:
        self._samples = 0
        for module, probability in inputs_of.items():
            module.register_forward_pre_hook(partial(self._drop, probability))

    def _drop(self, probability: float, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._samples == 0:
            return None
        maps, *rest = inputs
        if isinstance(maps, (list, tuple)):
            return ([self._dropped(m, probability) for m in maps], *rest)
        return (self._dropped(maps, probability), *rest)

    def _dropped(self, features: Tensor, probability: float) -> Tensor:
        channels = features.new_ones(self._samples, *features.shape[1:2], *[1] * (features.ndim - 2))
        scale = F.dropout(channels, probability)
        others = len(features) - self._samples
        return features * F.pad(scale, [0, 0] * (features.ndim - 1) + [others, 0], value=1.0)

    @contextmanager
    def of_last(self, samples: int) -> Iterator[None]:
        """In forwards inside, that many samples at the end of the batch lose channels."""
        self._samples = samples
        try:
            yield
        finally:
            self._samples = 0
