"""Parts of networks and losses that stay in float32 whatever the mixed precision around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def float32_region(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast. Inputs must be cast by the caller, since some may be half precision already."""
    # nnU-Net knows autocast on CUDA alone, and older PyTorch refuses to switch it off where it does not exist
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "cpu") else nullcontext()


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
