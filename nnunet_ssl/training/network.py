"""Helpers for networks that torch.compile or DDP may have wrapped."""

from __future__ import annotations

import torch
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside a DDP and/or torch.compile wrapper, or the module itself."""
    if isinstance(module, DistributedDataParallel):
        module = module.module
    return module._orig_mod if isinstance(module, OptimizedModule) else module


@torch.no_grad()
def swap_weights(first: nn.Module, second: nn.Module) -> None:
    """Exchange the parameter values of two networks of the same architecture, without a copy."""
    for a, b in zip(unwrap(first).parameters(), unwrap(second).parameters(), strict=True):
        a.data, b.data = b.data, a.data
