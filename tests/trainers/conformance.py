"""What holds for every registered trainer, beside its own tests: the parts of the suite that its files share.

tests/trainers/test_conformance_data.py, ..._resume.py and ..._ranks.py run it; a trainer joins by being registered, and
declares its routes in routing.py. One finished run of each trainer and configuration serves several checks.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.running import SHORT
from tests.trainers.registered import make_registered

TRAINING = {**SHORT, "num_epochs": 3, "num_iterations_per_epoch": 2}
PASSING = ("epoch_start_timestamps", "epoch_end_timestamps", "_best_ema")
"""Times of day, and what nnU-Net itself brings up to date only after it has written a checkpoint."""


@dataclass(frozen=True)
class Run:
    """A finished training run: its trainer, the results, and a copy of the checkpoint after each epoch but the last."""

    trainer: Any
    folder: Path
    checkpoints: tuple[Path, ...]

    @property
    def final(self) -> dict[str, Any]:
        return torch.load(self.folder / "checkpoint_final.pth", weights_only=False)


def run(dataset: Path, name: str, configuration: str, hyperparameters: dict[str, Any], kept: Path) -> Run:
    """Train to the end with nnU-Net's own loop, and validate as nnU-Net's command does."""
    trainer = make_registered(
        dataset, name, configuration, split="n2", training=TRAINING, hyperparameters=hyperparameters
    )
    copies: list[Path] = []
    start = trainer.on_epoch_start

    def on_epoch_start() -> None:
        if trainer.current_epoch:
            copies.append(kept / f"after_{trainer.current_epoch}.pth")
            shutil.copy(Path(trainer.output_folder, "checkpoint_latest.pth"), copies[-1])
        start()

    trainer.on_epoch_start = on_epoch_start
    trainer.run_training()
    trainer.perform_actual_validation()
    return Run(trainer, Path(trainer.output_folder), tuple(copies))


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Where two checkpoints differ, but for what is PASSING."""
    if isinstance(first, dict) and isinstance(second, dict):
        keys = [*first, *(k for k in second if k not in first)]
        return [
            found
            for key in keys
            if key not in PASSING
            for found in differences(first.get(key), second.get(key), f"{where}/{key}")
        ]
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{where}/{i}")]
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return [] if torch.equal(first, second) else [where]
    return [] if first == second or (first != first and second != second) else [where]


def plain(value: Any) -> bool:
    """Tensors and plain Python only."""
    if isinstance(value, dict):
        return all(plain(k) and plain(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return all(plain(v) for v in value)
    return value is None or type(value) in (torch.Tensor, int, float, str, bool)
