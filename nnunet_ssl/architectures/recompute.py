"""Activations that are computed again in the backward pass instead of being kept.

Each piece ends in a convolution or in cheap operations: recomputation stops once the last input is there that the
backward pass needs, so that no expensive convolution runs twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def worth_it(wanted: bool | None, device: torch.device) -> bool:
    """What is wanted; ``None``: unless the device is a CPU, which has more memory than time."""
    return device.type != "cpu" if wanted is None else wanted


def maybe_recompute(wanted: bool | None, features: Tensor, draws: bool = False) -> Any:
    """``run(module, *inputs)``: as it is, or keeping no activations.

    Args:
        wanted: see :func:`worth_it`.
        draws: whether modules draw random numbers, such as those of a dropout, which must then be the same again.
    """
    if worth_it(wanted, features.device) and torch.is_grad_enabled():
        return partial(checkpoint, use_reentrant=False, preserve_rng_state=draws)
    return call


def settle(network: nn.Module, wanted: bool) -> None:
    """Say yes or no wherever the device decides, as for a step of which only the shapes are known."""
    for module in network.modules():
        if getattr(module, "recompute", False) is None:
            module.recompute = wanted  # type: ignore[assignment]


def residual(block: Any, features: Tensor, wanted: bool | None, *, of_image: bool = False, copied: bool = False) -> Any:
    """block(features) of MONAI's UnetResBlock, which keeps the outputs of its convolutions alone.

    Args:
        features: (B, C, *S).
        wanted: see :func:`maybe_recompute`.
        of_image: of so few channels that the convolutions that read them run again, too.
        copied: what follows copies the result, as a concatenation does, and keeps the copy.
    """
    run = maybe_recompute(wanted, features)
    if run is call:
        return block(features)

    def shortcut(features: Tensor) -> Tensor:
        return cast(Tensor, block.conv3(features)) if hasattr(block, "conv3") else features

    def second(hidden: Tensor) -> Tensor:
        return cast(Tensor, block.conv2(block.lrelu(block.norm1(hidden))))

    def end(hidden: Tensor, beside: Tensor) -> Tensor:
        if hasattr(block, "norm3"):
            beside = block.norm3(beside)
        return cast(Tensor, block.lrelu(block.norm2(hidden) + beside))

    if of_image:
        hidden = run(lambda image: second(block.conv1(image)), features)
        return run(lambda hidden, image: end(hidden, shortcut(image)), hidden, features)
    hidden = run(second, block.conv1(features))
    return (run if copied else call)(end, hidden, shortcut(features))


def call(module: Any, *inputs: Any) -> Any:
    """module(*inputs)"""
    return module(*inputs)


def chain(*modules: Any) -> Any:
    """One after the other, as a function; a new nn.Sequential in a forward pass would not compile."""

    def chained(features: Tensor) -> Tensor:
        for module in modules:
            features = module(features)
        return features

    return chained
