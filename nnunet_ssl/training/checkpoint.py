"""Checkpoints that survive a kill, and the random state that makes a resumed run continue as if uninterrupted."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_ssl.data.quiet import describe_failure
from nnunet_ssl.errors import INSTALL, complain
from nnunet_ssl.system.failures import raise_failure
from nnunet_ssl.system.whole_files import whole_file
from nnunet_ssl.training.distributed import number_of_ranks, rank

CHECKPOINT_VERSION = 1


def write_atomically(checkpoint: dict[str, Any], filename: str) -> None:
    """torch.save by way of :func:`whole_file`: a reader sees the old or the new one."""
    with whole_file(filename) as temporary, open(temporary, "wb") as file:
        torch.save(checkpoint, file)


def what_is_saved(save: Callable[[Any], None]) -> dict[str, Any]:
    """The checkpoint that ``save`` would write to a file, in main memory."""
    buffer = io.BytesIO()
    save(buffer)
    buffer.seek(0)
    checkpoint: dict[str, Any] = torch.load(buffer, map_location="cpu", weights_only=False)
    return checkpoint


def read_extra_state(filename: str, trainer: str, key: str) -> dict[str, Any]:
    """What a trainer of ours added to its checkpoint.

    Raises:
        SemiSupervisedError: the file was written by another trainer, or is damaged.
    """
    try:
        checkpoint = torch.load(filename, map_location="cpu", mmap=True, weights_only=False)
        name, extra = checkpoint["trainer_name"], checkpoint.get(key)
    except Exception as error:  # pickle, zip files and torch complain in many ways
        raise_failure(error)
        raise complain(
            f"{filename} is no checkpoint of nnU-Net, or a damaged one ({describe_failure(error)}).",
            remedy="Delete it and repeat the command: --c then takes another checkpoint there, or trains anew.",
        ) from error
    if name != trainer or extra is None:
        raise complain(
            f"{filename} is a checkpoint of {name}, not of {trainer}.",
            remedy="Continue with the trainer that wrote it (-tr), or, if the network is the same, start from its "
            f"weights alone: nnUNetv2_train ... -pretrained_weights {filename}",
        )
    return dict(extra)


def load_part(module: nn.Module, states: Mapping[str, dict[str, Any]], name: str) -> None:
    """Load what a checkpoint holds of an auxiliary module, strictly.

    Raises:
        SemiSupervisedError: it has no such module, or other weights than this version's and these settings'.
    """
    try:
        module.load_state_dict(states[name])
    except (KeyError, RuntimeError) as error:
        raise complain(
            f"This training cannot be continued: the checkpoint's {name} is not that of this version of the package "
            f"with the settings in force ({' '.join(str(error).split())}).",
            remedy="Continue it with the version and settings that began it, or train anew. The checkpoint still "
            "predicts, and its network is a start for another training: -pretrained_weights.",
        ) from error


def check_version(version: int) -> None:
    """Raise SemiSupervisedError where a later version of this package wrote the state."""
    if version > CHECKPOINT_VERSION:
        raise complain(
            f"The checkpoint has format {version}; this package reads up to {CHECKPOINT_VERSION}.",
            remedy=f"Update the package: {INSTALL}",
        )


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """A sentence for each setting whose value in force differs."""
    for part in ("training", "hyperparameters"):
        for name in sorted(before[part].keys() | now[part].keys()):
            was, value = before[part].get(name), now[part].get(name)
            if name not in now[part]:
                yield f"{name} was {was!r} before the resume; this version has no such setting."
            elif name not in before[part]:
                yield f"{name} is {value!r} now; the checkpoint is from before this setting."
            elif was != value:
                yield f"{name} was {was!r} before the resume and is {value!r} now."


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


def own_generator(device: torch.device) -> torch.Generator:
    """A generator from which one method alone draws: seeded with torch's own seed, and another one on each rank."""
    if device.type == "meta":  # where nothing is drawn
        device = torch.device("cpu")
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
