"""Exponential moving average of a network's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_ema(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * model, for every parameter once, in place.

    Walks ``parameters()``, which is de-duplicated: nnU-Net's networks register each convolution under several names,
    so that a walk over the state_dict would move encoder tensors four times per call. Buffers are left alone.

    Raises:
        ValueError: decay outside [0, 1], or the two modules have different parameters.
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay must lie in [0, 1], got {decay}")
    targets: list[torch.Tensor] = [*averaged.parameters()]
    sources: list[torch.Tensor] = [*model.parameters()]
    if [t.shape for t in targets] != [s.shape for s in sources]:
        raise ValueError("the two modules must have the same parameters in the same order")
    torch._foreach_lerp_(targets, sources, 1.0 - decay)


@torch.no_grad()
def copy_buffers(averaged: nn.Module, model: nn.Module) -> None:
    """averaged <- model for every buffer (statistics of a batch norm), which :func:`update_ema` leaves alone."""
    for target, source in zip(averaged.buffers(), model.buffers(), strict=True):
        target.copy_(source)
