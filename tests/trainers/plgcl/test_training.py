"""PLGCL from end to end in process: kinds of data, options, resume, checkpoint, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.plgcl import settings as plgcl_settings
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.training.monitor import Monitor
from tests.running import SHORT, make_trainer

pytestmark = pytest.mark.usefixtures("no_figures")
TWO = {**SHORT, "num_iterations_per_epoch": 2}
FEW = {"min_keys": 2, "memory_size": 64, "embedding_size": 16}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


# ---- resume and checkpoint


# ---- what is refused


def test_an_encoder_that_cannot_take_the_windows_is_explained_at_the_start(make_dataset, monkeypatch):
    """The plans promise other strides than the network has."""
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerPLGCL)
    monkeypatch.setattr(plgcl_settings, "plan_grid", lambda *_: PatchGrid(2, (4, 4, 4), ((0,), (0,), (0,))))
    with pytest.raises(SemiSupervisedError, match=r"cannot embed patches of \[4, 4, 4\] voxels at stage 2: .*spatial"):
        trainer.initialize()


@pytest.mark.parametrize("epochs, warned", [(50, True), (51, False)])
def test_a_training_that_is_all_warm_up_is_warned_about(make_dataset, epochs, warned):
    training, hyperparameters = {**TWO, "num_epochs": epochs}, {**FEW, "warmup_epochs": 50}
    trainer = make_trainer(make_dataset(), nnUNetTrainerPLGCL, training=training, hyperparameters=hyperparameters)
    trainer.on_train_start()
    assert ("The warm-up of 50 epochs is the whole training" in Path(trainer.log_file).read_text()) == warned


def test_purity_is_that_of_the_labelled_part(make_dataset):
    """Where the label is ignored, nothing is known to be wrong."""
    trainer = make_trainer(make_dataset(labels=IGNORE), nnUNetTrainerPLGCL, training=TWO, hyperparameters=FEW)
    trainer.on_train_start()
    labeled, _ = trainer.split_batch(next(trainer.dataloader_train))
    target = labeled.target[0]
    target[:] = 1
    target[:, :, 8:] = 3
    for logits, expected in (([0.0, 9.0, 0.0], 1.0), ([0.0, 0.0, 9.0], 0.0)):
        trainer.monitor = Monitor(trainer.device)
        trainer.forward = lambda network, images, logits=logits: (
            torch.tensor(logits).view(1, 3, 1, 1, 1).expand(len(images), 3, *images.shape[2:])
        )
        trainer.observe_purity(labeled)
        assert trainer.monitor.epoch_means()["purity"] == expected
