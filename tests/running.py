"""In-process training on a tiny dataset."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp
from batchgenerators.utilities.file_and_folder_operations import load_json, load_pickle, write_pickle
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunet_ssl.data.splits import Fold, Split, Splits, write_splits
from nnunet_ssl.training.checkpoint import seed_everything
from tests.tiny import DATASET

SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 3,
    "num_val_iterations_per_epoch": 1,
    "save_every": 1,
    "optimizer": "adamw",
    "initial_lr": 0.003,
}


CASES = [f"tiny_{i:03d}" for i in range(6)]
FOLD = Fold(labeled=CASES[:2], unlabeled=CASES[2:5], val=CASES[5:])


def write_split(dataset: Path, fold: Fold = FOLD, name: str = "n2") -> None:
    write_splits(str(dataset), Splits(DATASET, {}, {name: Split(0.4, 0, [fold])}))


def hide(dataset: Path, case: str, label: int) -> None:
    """Let the preprocessed label of a case not show a class, as far as nnU-Net's properties tell."""
    path = str(dataset / "nnUNetPlans_3d_fullres" / f"{case}.pkl")
    properties = load_pickle(path)
    properties["class_locations"][label] = []
    write_pickle(properties, path)


def make_trainer(
    dataset: Path,
    trainer: type,
    configuration: str = "3d_fullres",
    *,
    fold: int | str = 0,
    split: str | None = None,
    training: dict[str, Any] | None = SHORT,
    hyperparameters: dict[str, Any] | None = None,
    plans_name: str = "nnUNetPlans",
    seed: int = 0,
    device: str = "cpu",
) -> Any:
    """A trainer with the settings block in its plans; ``training=None`` and no other setting: no block at all.

    What networks label after a few steps holds no weight back, unless the test asks for that with the setting guard.
    The pull of each term is measured once per epoch: with epochs of three steps, twice would be most of the time.
    """
    plans = copy.deepcopy(load_json(str(dataset / f"{plans_name}.json")))
    block: dict[str, Any] = {}
    if training is not None:
        block["training"] = training
    if split is not None:
        block["split"] = split
    if hyperparameters is not None:
        block["hyperparameters"] = {trainer.__name__: hyperparameters}
    if block:
        if has_guard(trainer):
            block["hyperparameters"] = {trainer.__name__: {"guard": False, "pull_looks": 1, **(hyperparameters or {})}}
        plans["nnunet_ssl"] = block
    plans["continue_training"] = False
    seed_everything(seed)
    dataset_json = load_json(str(dataset / "dataset.json"))
    made = trainer(plans, configuration, fold, dataset_json, torch.device(device))
    made._save_debug_information = lambda: None  # prints every weight: a seventh of a tiny training's time
    return made


def has_guard(trainer: type) -> bool:
    """Whether it learns from pseudo-labels."""
    return any(setting.name == "guard" for setting in fields(trainer.Hyperparameters))


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same_weights(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def run_ranks(work: Callable[[int, Path], Any], dataset: Path, out: Path, ranks: int = 2) -> list[Any]:
    """What work(rank, dataset) returns in one process per rank of a gloo group; nnU-Net's DDP wraps for the CPU.

    Forked where autograd has no threads of a device: a new interpreter would need longer for its imports than for the
    work.
    """
    from nnunetv2.run.run_training import find_free_network_port

    method = "spawn" if torch.cuda.is_available() or "fork" not in mp.get_all_start_methods() else "fork"
    arguments = (work, ranks, dataset, find_free_network_port(), out)
    mp.start_processes(_on_rank, arguments, nprocs=ranks, start_method=method)
    return [torch.load(out / f"{rank}.pt", weights_only=False) for rank in range(ranks)]


def _on_rank(rank: int, work: Callable[[int, Path], Any], ranks: int, dataset: Path, port: int, out: Path) -> None:
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as host

    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    host.DDP = lambda module, device_ids: DistributedDataParallel(module)  # nnU-Net passes CUDA ids
    torch.save(work(rank, dataset), out / f"{rank}.pt")
    dist.destroy_process_group()
