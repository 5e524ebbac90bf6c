"""Features of which whole channels are dropped on their way from the encoder to the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class FeatureDropout:
    """Drops channels of every skip connection and of the bottleneck, for the last samples of a batch alone.

    Source: UniMatch (Yang et al., CVPR 2023), feature perturbation of its code for medical images: survivors are
    divided by the probability to survive. What is called is the network or its wrapper, as always.

    Args:
        network: not wrapped; its encoder hands a list of features to its decoder, as in nnU-Net's U-Nets.
        probability: of a channel to be dropped.

    Raises:
        NotImplementedError: any other network.
    """

    def __init__(self, network: Any, probability: float) -> None:
        if not isinstance(getattr(network, "decoder", None), nn.Module) or not hasattr(network, "encoder"):
            raise NotImplementedError(
                f"{type(network).__name__} has no encoder that hands its features to a decoder, so that none can be "
                "dropped. Set the hyper-parameter feature_dropout=null."
            )
        self.probability = probability
        self._samples = 0
        network.decoder.register_forward_pre_hook(self._drop)

    def _drop(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self._samples == 0:
            return None
        return ([self._dropped(skip) for skip in inputs[0]], *inputs[1:])

    def _dropped(self, skip: Tensor) -> Tensor:
        channels = skip.new_ones(self._samples, *skip.shape[1:2], *[1] * (skip.ndim - 2))
        scale = F.dropout(channels, self.probability)
        return skip * F.pad(scale, [0, 0] * (skip.ndim - 1) + [len(skip) - self._samples, 0], value=1.0)

    @contextmanager
    def of_last(self, samples: int) -> Iterator[None]:
        """In forwards inside, that many samples at the end of the batch lose channels."""
        self._samples = samples
        try:
            yield
        finally:
            self._samples = 0
