"""The precision in which losses are evaluated."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def float32_region(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast, whose inputs the caller has cast. Where there is no autocast, nothing changes."""
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "cpu") else nullcontext()
