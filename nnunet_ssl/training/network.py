"""Helpers for networks that torch.compile or DDP may have wrapped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.errors import complain


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a DDP and/or torch.compile wrapper, or the module itself."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    return module._orig_mod if isinstance(module, OptimizedModule) else module


@contextmanager
def tried_on_plans(trainer: str, configuration: str) -> Iterator[None]:
    """Networks built inside hold no memory; plans that they do not fit become an error for people.

    Raises:
        SemiSupervisedError: instead of ValueError and TypeError.
    """
    try:
        with torch.device("meta"):
            yield
    except (ValueError, TypeError) as error:
        raise complain(f"{trainer} cannot train {configuration} of these plans: {error}.") from error


@torch.no_grad()
def swap_weights(first: nn.Module, second: nn.Module) -> None:
    """Exchange parameters and buffers (batch norm statistics) of two networks of one architecture, without a copy."""
    first, second = unwrap(first), unwrap(second)
    pairs = zip([*first.parameters(), *first.buffers()], [*second.parameters(), *second.buffers()], strict=True)
    for a, b in pairs:
        a.data, b.data = b.data, a.data


def freeze_unused_heads(network: nn.Module) -> None:
    """Without deep supervision, the segmentation layers below the last one get no gradient, which DDP refuses.

    nnU-Net's decoders have those layers all the same, so that weights fit with and without deep supervision.
    """
    for module in unwrap(network).modules():
        layers = getattr(module, "seg_layers", None)
        if isinstance(layers, nn.ModuleList) and getattr(module, "deep_supervision", None) is False:
            layers[:-1].requires_grad_(False)
