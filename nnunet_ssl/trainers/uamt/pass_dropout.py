"""Dropout for the passes of a teacher whose network has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class PassDropout:
    """Drops channels at the bottleneck and before the last segmentation layer, in forwards within :meth:`on` alone.

    Source: UA-MT, whose V-Net has Dropout3d in these places. How likely a channel survives is a tensor, 1 outside, so
    that a compiled network is one graph for passes with and without dropout.

    Args:
        network: not wrapped, with the decoder of nnU-Net's U-Nets.
        probability: of a channel to be dropped; survivors are divided by the probability to survive.
        device: of the network.

    Raises:
        NotImplementedError: any other network.
    """

    def __init__(self, network: nn.Module, probability: float, device: torch.device) -> None:
        decoder: Any = getattr(network, "decoder", None)
        if not (hasattr(decoder, "transpconvs") and hasattr(decoder, "seg_layers")):
            raise NotImplementedError(
                f"{type(network).__name__} has no decoder as nnU-Net's U-Nets, so that there is no place for dropout. "
                "Set the hyper-parameter teacher_dropout=0."
            )
        self.probability = probability
        self._survival = torch.ones((), device=device)
        for module in (decoder.transpconvs[0], decoder.seg_layers[-1]):
            module.register_forward_pre_hook(self._drop)

    def _drop(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor]:
        (features,) = inputs
        survival = self._survival.expand(*features.shape[:2], *[1] * (features.ndim - 2))
        return (features * (torch.bernoulli(survival) / survival).to(features.dtype),)

    @contextmanager
    def on(self) -> Iterator[None]:
        """Forwards inside lose channels."""
        self._survival.fill_(1 - self.probability)
        try:
            yield
        finally:
            self._survival.fill_(1)
