"""A training whose weights are not numbers any more ends before it validates or saves them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.cps.trainer import nnUNetTrainerCPS
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.running import make_trainer


def test_every_trained_network_is_looked_at(ready_dataset):
    trainer = make_trainer(ready_dataset(), nnUNetTrainerCPS, "2d", split="n2")
    trainer.initialize()
    trainer.check_weights()
    (other,) = (name for name in trainer.trained_modules() if name != "network")
    next(trainer.auxiliary[other].parameters()).data.view(-1)[0] = torch.inf
    with pytest.raises(SemiSupervisedError, match=rf"diverged in epoch 0.*\n  - {other} of ") as error:
        trainer.check_weights()
    assert "network of" not in str(error.value)


def test_the_epoch_is_neither_validated_nor_saved(ready_dataset, monkeypatch, no_figures):
    """The checkpoint of the epoch before stays, and the training goes on from it."""
    trainer = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "2d", split="n2")
    step, validated = trainer.train_step, []

    def diverge(batch):
        result = step(batch)
        if trainer.current_epoch == 1:
            next(trainer.network.parameters()).data.fill_(torch.nan)
        return result

    monkeypatch.setattr(trainer, "train_step", diverge)
    monkeypatch.setattr(trainer, "on_validation_epoch_start", lambda: validated.append(trainer.current_epoch))
    with pytest.raises(SemiSupervisedError, match="diverged in epoch 1"):
        trainer.run_training()
    assert validated == [0]
    folder = Path(trainer.output_folder)
    saved = torch.load(folder / "checkpoint_latest.pth", weights_only=False)
    assert saved["current_epoch"] == 1 and not (folder / "checkpoint_final.pth").exists()
    assert all(value.isfinite().all() for value in saved["network_weights"].values())
    again = make_trainer(ready_dataset(), nnUNetTrainerMeanTeacher, "2d", split="n2")
    again.initialize()
    again.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    assert again.current_epoch == 1
