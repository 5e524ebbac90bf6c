from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.trainers.plgcl.paper import nnUNetTrainerPLGCL_paper
from tests.running import SHORT, make_trainer

pytestmark = pytest.mark.usefixtures("no_figures")
FEW = {"num_val_iterations_per_epoch": 1, "num_iterations_per_epoch": 2, "save_every": 1}


def test_optimisation_and_weights_are_the_published_ones(make_dataset):
    trainer = make_trainer(make_dataset(preprocess=False), nnUNetTrainerPLGCL_paper, training=None)
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.Adam
    for epoch in (0, 500, 999):
        trainer.lr_scheduler.step(epoch)
        assert [g["lr"] for g in trainer.optimizer.param_groups] == [1e-4, 1e-4]  # network and head
    assert all(g["weight_decay"] == 0 for g in trainer.optimizer.param_groups)
    hp = trainer.hyperparameters
    assert (hp.consistency_weight, hp.contrast_weight, hp.temperature, hp.covariance_weight) == (0.25, 0.2, 0.2, 4.0)
    assert (hp.neighbours, hp.ema_decay, trainer.warmup_epochs) == (20, 0.999, 50)
    trainer.current_epoch = 50
    assert trainer.covariance_weight == 4.0 and trainer.loss.loss.weight_dice == 0.0
    assert (hp.queries, hp.key_encoder, hp.confidence_source) == ("anchor", "student", "student")


class NoDeepSupervision(nnUNetTrainerPLGCL_paper):
    def set_up(self) -> None:
        super().set_up()
        self.enable_deep_supervision = False


def test_segmentation_layers_without_use_are_not_trained(make_dataset):
    """Without a gradient DDP would refuse them."""
    trainer = make_trainer(make_dataset(preprocess=False), NoDeepSupervision, training=None)
    trainer.initialize()
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    *unused, last = trainer.network.decoder.seg_layers
    assert unused and all(not p.requires_grad and id(p) not in trained for m in unused for p in m.parameters())
    assert all(id(p) in trained for p in last.parameters())


def test_the_settings_block_wins(make_dataset):
    dataset = make_dataset(preprocess=False)
    trainer = make_trainer(dataset, nnUNetTrainerPLGCL_paper, training={**SHORT, "weight_decay": 0.02})
    trainer.initialize()
    group = trainer.optimizer.param_groups[0]
    assert (type(trainer.optimizer), group["lr"], group["weight_decay"]) == (torch.optim.AdamW, 0.003, 0.02)
    trainer = make_trainer(dataset, nnUNetTrainerPLGCL_paper, training={"initial_lr": 0.001})
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.Adam and trainer.optimizer.param_groups[0]["lr"] == 0.001
    assert make_trainer(dataset, find_trainer("nnUNetTrainerPLGCL_paper_9epochs"), training=None).num_epochs == 9


@pytest.mark.parametrize("configuration, size", [("3d_fullres", 2), ("2d", 8)])
def test_trains_with_slices_of_the_published_number(make_dataset, configuration, size):
    trainer = make_trainer(
        make_dataset(), nnUNetTrainerPLGCL_paper, configuration, training={**FEW, "num_epochs": 2},
        hyperparameters={"warmup_epochs": 1, "min_keys": 2, "memory_size": 64},
    )  # fmt: skip
    trainer.run_training()
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    assert table["loss_contrast"][1] > 0 and table["weight_covariance"].tolist() == [4, 4]
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert len(labeled.image) == len(unlabeled.weak) == size
