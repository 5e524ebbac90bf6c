"""Losses of large maps in less memory: what their gradient needs is computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGE = 2**24  # numbers, 64 MiB in float32: of smaller maps the intermediate ones are small beside a network's


def sparing(function: Callable[..., Tensor], like: Tensor) -> Callable[..., Tensor]:
    """The function itself, or where the map is large one of the same value and gradient that keeps its inputs alone.

    For functions that draw no random numbers, called with a part of the map, such as a sample, at a time: then what
    they compute in between is in memory for one part alone.

    Args:
        function: tensors -> tensor.
        like: the whole map.
    """
    if like.numel() < LARGE or not torch.is_grad_enabled():
        return function
    return partial(checkpoint, function, use_reentrant=False, preserve_rng_state=False)
