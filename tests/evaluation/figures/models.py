"""A model in nnUNet_results as a training leaves it, without the training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ssl.training.deep_supervision import finest
from tests.running import make_trainer


def saved_model(
    base: Path,
    kind: type,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    all_is: int | None = None,
    **hyperparameters: Any,
) -> Any:
    """An initialised trainer whose checkpoint_final.pth is saved.

    Args:
        base: preprocessed dataset.
        folder: for nnUNet_results.
        all_is: class that the teacher sees everywhere; None: the teacher stays a copy.
    """
    monkeypatch.setenv("nnUNet_results", str(folder / "results"))
    trainer = make_trainer(base, kind, hyperparameters=hyperparameters)
    trainer.initialize()
    if all_is is not None:
        teacher = trainer.auxiliary["teacher"]
        for layer in teacher.decoder.seg_layers:
            torch.nn.init.zeros_(layer.weight)
            layer.bias.data = torch.eye(len(layer.bias))[all_is]
        assert finest(teacher(torch.randn(1, 1, 16, 16, 16))).argmax(1).unique().tolist() == [all_is]
    fold = Path(trainer.output_folder)
    for name, content in (("plans", trainer.plans_manager.plans), ("dataset", trainer.dataset_json)):
        (fold.parent / f"{name}.json").write_text(json.dumps(content))
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    return trainer
