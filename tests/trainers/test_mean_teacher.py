from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.running import make_trainer, weights

pytestmark = pytest.mark.usefixtures("no_figures")


def test_noise_off_and_equal_networks_give_exactly_zero_consistency(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, hyperparameters={"noise_std": 0.0})
    trainer.on_train_start()
    terms = trainer.losses(*trainer.split_batch(next(trainer.dataloader_train)))
    assert terms["consistency"].item() == 0.0
    assert terms["supervised"].item() != 0.0


def test_padding_teaches_nothing(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, "2d")
    trainer.on_train_start()
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    unlabeled.valid.fill_(True)
    unlabeled.valid[:, :, :4] = False
    outputs, others = trainer.forward_joint(labeled.image, unlabeled.weak)
    student, teacher = (torch.randn_like(others[0]).requires_grad_() for _ in range(2))
    trainer.forward_joint, trainer.teacher = lambda *_: (outputs, [student]), lambda _: teacher.detach()
    consistency = trainer.losses(labeled, unlabeled)["consistency"]
    (gradient,) = torch.autograd.grad(consistency, student)
    assert not gradient[:, :, :4].any() and gradient[:, :, 4:].all()
    teacher.data[:, :, :4] = 100.0
    assert torch.equal(trainer.losses(labeled, unlabeled)["consistency"], consistency)


def test_boxes_move_what_the_teacher_says_with_the_images(make_dataset):
    """Both networks say the image itself here: equal wherever images and answers are mixed alike."""
    hyperparameters = {"noise_std": 0.0, "cutmix_probability": 1.0}
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, "2d", hyperparameters=hyperparameters)
    trainer.on_train_start()
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    outputs, _ = trainer.forward_joint(labeled.image, unlabeled.weak)
    seen = []

    def answer(images):
        return torch.cat([images, -images, 0 * images], 1)

    trainer.teacher = answer
    trainer.forward_joint = lambda _, images: seen.append(images) or (outputs, [answer(images).requires_grad_()])
    assert trainer.losses(labeled, unlabeled)["consistency"].item() == 0.0
    assert not torch.equal(seen[0], unlabeled.weak)


def test_teacher_follows_the_published_schedule(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher, hyperparameters={"ema_decay": 0.6})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    expected = None
    for step in range(4):
        trainer.train_step(next(trainer.dataloader_train))
        student = weights(trainer.network)
        decay = min(1 - 1 / (step + 1), 0.6)  # the first step copies the student
        expected = (
            student
            if expected is None
            else [decay * e + (1 - decay) * s for e, s in zip(expected, student, strict=True)]
        )
        for e, t in zip(expected, trainer.auxiliary["teacher"].parameters(), strict=True):
            torch.testing.assert_close(t, e)


def test_weight_ramps_up(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher)
    trainer.run_training()
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    ramp = [0.1 * math.exp(-5 * (1 - i / 6) ** 2) for i in range(6)]
    np.testing.assert_allclose(table["weight_consistency"], [np.mean(ramp[:3]), np.mean(ramp[3:])], rtol=1e-5)
