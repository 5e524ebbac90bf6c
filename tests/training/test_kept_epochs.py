"""The setting kept_epochs: checkpoints that are kept for predictions with several of them."""

from __future__ import annotations

import os

import pytest
import torch

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.running import SHORT, make_trainer


@pytest.mark.usefixtures("no_figures")
def test_checkpoints_are_kept_after_these_epochs(make_dataset, monkeypatch):
    base = make_dataset(preprocess=False)
    (base / "splits_final.json").write_text(
        '[{"train": ["tiny_000", "tiny_001", "tiny_002", "tiny_003"], "val": ["tiny_004"]}]'
    )
    trainer = make_trainer(base, nnUNetTrainerSupervised, training={**SHORT, "num_epochs": 3, "kept_epochs": [2]})
    trainer.run_training()
    kept, final = (
        torch.load(f"{trainer.output_folder}/{name}.pth", weights_only=False)
        for name in ("checkpoint_epoch_2", "checkpoint_final")
    )
    assert len(kept["logging"]["train_losses"]) == 2 and len(final["logging"]["train_losses"]) == 3
    assert any(not torch.equal(kept["network_weights"][n], w) for n, w in final["network_weights"].items())
    assert kept["trainer_name"] == "nnUNetTrainerSupervised"
    assert not os.path.exists(f"{trainer.output_folder}/checkpoint_epoch_1.pth")


@pytest.mark.parametrize("epochs", [[0], [3], ["1"], [True]])
def test_epochs_that_there_are_not(make_dataset, epochs):
    base = make_dataset(preprocess=False)
    with pytest.raises(SemiSupervisedError, match="kept_epochs = .* whole numbers from 1 to 2, the last epoch"):
        make_trainer(base, nnUNetTrainerSupervised, training={**SHORT, "kept_epochs": epochs})
