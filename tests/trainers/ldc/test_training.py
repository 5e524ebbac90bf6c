"""Training runs with the Lagrange-duality losses from end to end in process, with either network."""

from __future__ import annotations

import pytest
import torch

from nnunet_ssl.architectures.cmaformer import CMAformer
from nnunet_ssl.architectures.cmaformer_blocks import AtrousPyramid, ScalarGate
from nnunet_ssl.trainers.cmaformer.trainer import nnUNetTrainerCMAformer
from nnunet_ssl.trainers.ldc.trainer import nnUNetTrainerLDC
from tests.running import SHORT, make_trainer, same_weights, weights

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
CMA = nnUNetTrainerCMAformer


def test_settings_shape_cmaformer(make_dataset):
    options = {"gate": "qkv", "transformer_layers": 1, "lite": False}
    trainer = make_trainer(make_dataset(preprocess=False), CMA, hyperparameters=options)
    trainer.initialize()
    network = trainer.network
    assert type(network) is CMAformer and len(network.bottleneck.encoder) == 1
    assert isinstance(network.decoder.output, AtrousPyramid)
    assert not any(isinstance(m, ScalarGate) for m in network.modules())


def test_pretrained_weights_reach_teacher_and_norm_budget(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerLDC)
    trainer.initialize()
    before = trainer.dual.budget
    for parameter in trainer.network.parameters():
        parameter.data *= 3
    trainer.on_train_start()
    torch.testing.assert_close(trainer.dual.budget, 9 * before)
    assert same_weights(weights(trainer.auxiliary["teacher"]), weights(trainer.network))
