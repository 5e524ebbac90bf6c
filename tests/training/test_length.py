"""How long a training run is, asked of the class and of the trainer."""

from __future__ import annotations

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ssl.trainers import CONTROL, find_trainer
from tests.running import make_trainer


@pytest.mark.parametrize("name", [CONTROL, "nnUNetTrainerSKCDF_paper", "nnUNetTrainerMeanTeacher_7epochs"])
def test_a_trainer_is_as_long_as_its_class_says(make_dataset, name):
    dataset, kind = make_dataset(preprocess=False), find_trainer(name)
    for training in ({}, {"num_epochs": 5}):
        trainer = make_trainer(dataset, kind, training=training)
        assert trainer.num_epochs == kind.planned_epochs(trainer.plans_manager.plans)


def test_the_length_without_settings_is_nnunets(make_dataset):
    stock = make_trainer(make_dataset(preprocess=False), nnUNetTrainer, training=None)
    assert find_trainer(CONTROL).planned_epochs({}) == stock.num_epochs
