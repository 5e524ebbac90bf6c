from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.training.teacher import Teacher, constant, delayed, recent, warmed_up
from tests.running import SHORT, make_trainer, same_weights, weights


def test_schedules_by_hand():
    assert [constant(0.9)(t) for t in (0, 7)] == [0.9, 0.9]
    assert [warmed_up(0.99)(t) for t in (0, 1, 3, 98, 99, 500)] == pytest.approx([0, 0.5, 0.75, 98 / 99, 0.99, 0.99])
    assert [recent(0.999)(t) for t in (0, 90, 1000, 8989, 8990, 10**5)] == pytest.approx(
        [0.1, 0.91, 1001 / 1010, 8990 / 8999, 0.999, 0.999]
    )
    assert [delayed(0.99, 3)(t) for t in (0, 2, 3, 9)] == [0, 0, 0.99, 0.99]


def joined(decay, training_mode: bool = False) -> SimpleNamespace:
    """What a teacher needs of a trainer: a network with a batch norm, and a head."""
    network, head = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Dropout(0.5)), nn.Linear(2, 2)
    copy = nn.Sequential(nn.Conv1d(1, 2, 1), nn.BatchNorm1d(2), nn.Dropout(0.5)).requires_grad_(False)
    teacher = Teacher(copy, decay, {"head": head}, training_mode)
    auxiliary = {"head": head, **teacher.modules()}
    trainer = SimpleNamespace(network=network, auxiliary=auxiliary, forward=lambda net, *images: net(*images))
    teacher.join(trainer)
    trainer.teacher = teacher
    return trainer


def test_update_averages_the_network_and_its_heads_and_copies_buffers():
    trainer = joined(constant(0.75))
    assert list(trainer.auxiliary) == ["head", "teacher", "teacher_head"]
    before = {name: weights(trainer.auxiliary[name]) for name in ("teacher", "teacher_head")}
    trainer.network[1].running_mean += 5
    trainer.teacher.update(0)
    for name, source in (("teacher", trainer.network), ("teacher_head", trainer.auxiliary["head"])):
        for now, was, trained in zip(weights(trainer.auxiliary[name]), before[name], weights(source), strict=True):
            torch.testing.assert_close(now, 0.75 * was + 0.25 * trained)
    assert trainer.auxiliary["teacher"][1].running_mean.tolist() == [5, 5]


def test_it_runs_without_gradient_and_in_evaluation_mode_unless_told_otherwise():
    images = torch.randn(3, 1, 8, requires_grad=True)
    for training_mode in (False, True):
        trainer = joined(constant(0.9), training_mode)
        for module in trainer.auxiliary.values():
            module.train()
        trainer.teacher.set_mode()
        assert [trainer.auxiliary[n].training for n in ("teacher", "teacher_head", "head")] == [training_mode] * 2 + [
            True
        ]
        found = trainer.teacher(images)
        assert not found.requires_grad and (found == 0).any() == training_mode  # dropout
    assert not trainer.teacher.head("head", torch.ones(1, 2)).requires_grad


def test_a_delayed_teacher_is_the_network_until_its_start(make_dataset):
    class Delayed(nnUNetTrainerMeanTeacher):
        def build_auxiliary(self):
            modules = super().build_auxiliary()
            self.teacher = Teacher(self.network_copy(), delayed(0.9, 2))
            return modules | self.teacher.modules()

    trainer = make_trainer(make_dataset(), Delayed, "2d", training=SHORT, hyperparameters={"predict_with": "teacher"})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    equal = []
    for _ in range(3):
        trainer.train_step(next(trainer.dataloader_train))
        equal.append(same_weights(weights(trainer.network), weights(trainer.auxiliary["teacher"])))
    assert equal == [True, True, False]
    assert trainer.predictor() is trainer.auxiliary["teacher"]


def test_second_network_has_weights_and_a_clipping_group_of_its_own(make_dataset):
    class Two(nnUNetTrainerMeanTeacher):
        def build_auxiliary(self):
            return {**super().build_auxiliary(), "second": self.second_network()}

    trainer = make_trainer(make_dataset(), Two, "2d")
    trainer.initialize()
    second = trainer.auxiliary["second"]
    assert [p.shape for p in second.parameters()] == [p.shape for p in trainer.network.parameters()]
    assert not same_weights(weights(second), weights(trainer.network))
    trained = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in second.parameters()} <= trained
    assert [id(p) for p in second.parameters()] in [[id(p) for p in g] for g in trainer.clipping_groups()]
    assert len(second(torch.zeros(1, 1, 16, 16))) == len(trainer.network(torch.zeros(1, 1, 16, 16)))
