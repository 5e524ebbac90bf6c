"""Floats that a forward keeps for its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def saved_floats(module: nn.Module, run: Callable[[], Any]) -> float:
    """Floats in the storages that ``run`` saves, each counted once and without those of the module's own tensors."""
    own = {x.untyped_storage()._cdata for x in (*module.parameters(), *module.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in saved.values()) / 4
