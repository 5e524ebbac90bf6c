"""Parts of a network that stay in float32 whatever the mixed precision around them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def float32_region(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast. Inputs must be cast by the caller, since some may be half precision already."""
    if device.type == "meta":  # where planning imitates autocast by intercepting functions
        return torch._C.DisableTorchFunction()
    # nnU-Net knows autocast on CUDA alone, and older PyTorch refuses to switch it off where it does not exist
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "cpu") else nullcontext()
