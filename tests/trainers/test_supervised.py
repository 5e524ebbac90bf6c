from __future__ import annotations

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.running import CASES, SHORT, make_trainer, same_weights, weights, write_split

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_without_a_block_it_is_nnunet_bit_for_bit(make_dataset, configuration):
    dataset = make_dataset(preprocess=False)
    results = []
    for trainer_class in (nnUNetTrainer, nnUNetTrainerSupervised):
        trainer = make_trainer(dataset, trainer_class, configuration, training=None)
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 4, 2
        trainer.run_training()
        results.append((weights(trainer.network), trainer.logger.get_value("train_losses", None)))
    assert same_weights(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_trains_on_the_labelled_cases_of_the_split_alone(make_dataset):
    dataset = make_dataset(preprocess=False)
    write_split(dataset)
    trainer = make_trainer(dataset, nnUNetTrainerSupervised, split="n2")
    trainer.run_training()
    assert list(trainer.dataloader_train.data_loader.indices) == CASES[:2]
    assert list(trainer.dataloader_val.data_loader.indices) == CASES[5:]


def test_a_seed_decides_initial_weights_and_training(make_dataset):
    dataset = make_dataset(preprocess=False)

    def trained(seed, before):
        trainer = make_trainer(dataset, nnUNetTrainerSupervised, training={**SHORT, "seed": seed}, seed=before)
        trainer.run_training()  # loads in this process, so that nothing else is random
        return weights(trainer.network)

    first = trained(5, before=0)
    assert same_weights(first, trained(5, before=1))
    assert not same_weights(first, trained(6, before=0))
