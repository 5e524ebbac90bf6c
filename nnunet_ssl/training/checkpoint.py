"""Checkpoints that survive a kill, and the random state that makes a resumed run continue as if uninterrupted."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from nnunet_ssl.system.whole_files import whole_file


def write_atomically(checkpoint: dict[str, Any], filename: str) -> None:
    """torch.save by way of :func:`whole_file`: a reader sees the old or the new one."""
    with whole_file(filename) as temporary, open(temporary, "wb") as file:
        torch.save(checkpoint, file)


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of the generators of Python, NumPy, torch and the training device, as tensors and plain Python."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(name), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Inverse of :func:`random_state`. A state saved on another kind of device leaves that device's generator alone."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
