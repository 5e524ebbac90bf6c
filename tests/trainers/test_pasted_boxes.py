"""What is logged of pseudo-labels, and what the guard goes by, holds for whole patches, boxes or not."""

from __future__ import annotations

import pytest
import torch

from tests.trainers.inside import batch_of
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 1, "seed": 1}


@pytest.mark.parametrize(
    ("name", "hyperparameters"),
    [
        ("nnUNetTrainerFixMatch", {}),
        ("nnUNetTrainerUniMatch", {}),
        ("nnUNetTrainerMeanTeacher", {"cutmix_probability": 1}),
        ("nnUNetTrainerBCP", {"pretrain_fraction": 0}),
    ],
)
def test_pseudo_labels_under_a_box_count_and_agreement_does_not(ready_dataset, monkeypatch, name, hyperparameters):
    trainer = make_registered(
        ready_dataset(), name, "2d", split="n2", training=TRAINING, hyperparameters=hyperparameters
    )
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    seen = []
    monkeypatch.setattr(trainer.monitor, "pseudo_labels", lambda *given: seen.append(given))
    labeled, unlabeled = batch_of(trainer)
    trainer.losses(labeled, unlabeled)
    assert seen
    for student, teacher, valid, pasted in seen:
        assert student.shape == teacher.shape and torch.equal(valid, unlabeled.valid)
        assert 0 < pasted.float().mean() < 1
