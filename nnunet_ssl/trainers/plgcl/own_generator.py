"""A random generator from which one method alone draws, and its place in a checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_ssl.training.distributed import number_of_ranks, rank


def own_generator(device: torch.device) -> torch.Generator:
    """Seeded with torch's own seed, and another one on each rank."""
    return torch.Generator(device).manual_seed(torch.initial_seed() % 2**62 + rank())


def generator_state(generator: torch.Generator) -> dict[str, Any]:
    """For ``auxiliary_state``."""
    return {"generator": generator.get_state(), "generator_device": generator.device.type}


def restore_generator(generator: torch.Generator, state: dict[str, Any], epoch: int) -> None:
    """Continue from :func:`generator_state`, which is that of rank 0: other ranks begin anew, away from the start.

    Args:
        generator: as :func:`own_generator` made it.
        state: its state on the same kind of device; otherwise nothing changes.
        epoch: the one that begins.
    """
    if rank() > 0:
        generator.manual_seed(generator.initial_seed() + epoch * number_of_ranks())
    elif state["generator_device"] == generator.device.type:
        generator.set_state(state["generator"].cpu())
