"""How many patches the loaders of a real dataset deliver, and what a step waits for them; step_time.py --loaders."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import redirect_stdout
from typing import Any

import torch
from bench_trainers import STOCK, chosen_plans, make_trainer
from step_parts import LOADER, StepParts


def measure_loaders(args: argparse.Namespace) -> dict[str, Any]:
    """Patches per second that the loaders deliver when nothing else runs."""
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    plans, dataset_json, configuration = chosen_plans(args)
    fold: int | str = "all"
    if args.split:
        plans["nnunet_ssl"]["split"], fold = args.split, 0
    rows = []
    for name in [STOCK, *args.tr]:
        trainer = make_trainer(name, plans, configuration, dataset_json, torch.device(args.device), fold)
        with redirect_stdout(open(os.devnull, "w")):
            loader, validation = trainer.get_dataloaders()
        batch = next(loader)
        patches = len(batch["data"]) + (len(batch["unlabeled"]["data"]) if "unlabeled" in batch else 0)
        for _ in range(20):  # beyond the queue
            next(loader)
        start = time.perf_counter()
        for _ in range(args.steps * 4):
            next(loader)
        rows.append({"trainer": name, "patches_per_s": patches * args.steps * 4 / (time.perf_counter() - start)})
        rows[-1] |= training_with(trainer, loader, args.steps)
        for augmenter in (loader, validation):
            if hasattr(augmenter, "_finish"):
                augmenter._finish()
    for row in rows:
        row["ratio"] = row["patches_per_s"] / rows[0]["patches_per_s"]
    return {
        "what": f"loaders of {plans['dataset_name']}, {configuration}, {get_allowed_n_proc_DA()} workers",
        "rows": rows,
    }


def training_with(trainer: Any, loader: Any, steps: int) -> dict[str, float]:
    """Seconds of the parts of a step that is fed by the loader, and the share of it that waits for the loader."""
    trainer.network.train()
    clock = StepParts(trainer, lambda: next(loader))
    for _ in range(steps):
        clock.step()
    means = clock.means()
    return {f"{part}_s": seconds for part, seconds in means.items()} | {"starved": means[LOADER] / sum(means.values())}
