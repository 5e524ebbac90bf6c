"""Parts of a network that stay in float32 whatever the mixed precision around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_regions_on_meta = 0


def float32_region(device: torch.device) -> AbstractContextManager[Any]:
    """A context without autocast. Inputs must be cast by the caller, since some may be half precision already."""
    if device.type == "meta":
        return _noted()
    # nnU-Net knows autocast on CUDA alone, and older PyTorch refuses to switch it off where it does not exist
    return torch.autocast(device.type, enabled=False) if device.type in ("cuda", "cpu") else nullcontext()


@contextmanager
def _noted() -> Iterator[None]:
    global _regions_on_meta
    _regions_on_meta += 1
    try:
        yield
    finally:
        _regions_on_meta -= 1


def in_float32_region_on_meta() -> bool:
    """Whether such a context is open on the meta device, where planning imitates autocast, which has none there."""
    return _regions_on_meta > 0
