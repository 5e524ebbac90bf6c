"""Dual Networks from end to end in process: kinds of data, resume, prediction, the released preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_ssl.losses.consistency import uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.squared_dice import squared_dice_ce
from nnunet_ssl.trainers.dual_networks.released import nnUNetTrainerDualNetworks_released
from nnunet_ssl.trainers.dual_networks.trainer import nnUNetTrainerDualNetworks
from tests.running import SHORT, make_trainer, same_weights, weights
from tests.trainers.dual_networks.test_trainer import (
    DISAGREEMENT,
    REGIONS_IGNORE,
    batch_of,
    random_output,
)

pytestmark = pytest.mark.usefixtures("no_figures")
ONE = {**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 2}
IGNORE = {"background": 0, "ball": 1, "box": 2, "ignore": 3}


# ---- prediction


def test_pretrained_weights_of_another_kind_of_dataset(make_dataset):
    dataset = make_dataset()
    source = make_trainer(dataset, nnUNetTrainerDualNetworks)
    source.initialize()
    source.network.region_based.fill_(True)
    file = Path(source.output_folder, "source.pth")
    source.save_checkpoint(str(file))
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks, seed=5)
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(file))
    trainer.on_train_start()
    assert trainer.network.region_based.item() is False
    for name in ("student", "teacher"):
        loaded, own = (getattr(t.network, name).encoder for t in (source, trainer))
        assert same_weights(weights(loaded), weights(own))


# ---- the released preset

FEW = {"num_val_iterations_per_epoch": 1, "save_every": 1, "num_iterations_per_epoch": 2}
RELEASED = ("supervised_student", "supervised_teacher", *DISAGREEMENT, "consistency", "uncertainty")


def started(dataset: Path, **options: Any) -> nnUNetTrainerDualNetworks_released:
    trainer = make_trainer(dataset, nnUNetTrainerDualNetworks_released, **{"training": FEW, **options})
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def test_released_crops(make_dataset):
    trainer = started(make_dataset())
    assert trainer.network.teacher_dropout == (0.5, 0.5) and trainer.network.student_dropout == (0.0, 0.5)
    assert isinstance(next(trainer.dataloader_train)["target"], torch.Tensor)


@pytest.mark.parametrize("recipe", [{}, {"labels": IGNORE}, REGIONS_IGNORE], ids=["classes", "ignore", "regions"])
def test_released_objective(make_dataset, recipe):
    trainer = started(make_dataset(**recipe), hyperparameters={"disagreement_threshold": 0.4})
    labeled, unlabeled = batch_of(trainer)
    channels = trainer.label_manager.num_segmentation_heads
    out = random_output(labeled, unlabeled, channels)
    out = out._replace(student=out.student[0], teacher=out.teacher[0])
    trainer.forward = lambda *_: out
    terms = trainer.losses(labeled, unlabeled)
    assert tuple(terms) == RELEASED and all(term.item() > 0 for term in terms.values())
    torch.testing.assert_close(
        terms["uncertainty"],
        uncertainty_rectified_cross_entropy(
            trainer.targets.as_classes(out.student), trainer.targets.as_classes(out.teacher), hard_target=True
        ),
    )
    target = labeled.target
    if recipe is REGIONS_IGNORE:
        assert target.shape[1] == 3
        pairs = torch.stack((torch.zeros_like(out.student[:2]), out.student[:2]), 2).flatten(0, 1)
        annotated = target[:, 2:] == 0
        expected = squared_dice_ce(pairs, target[:, :2].reshape(4, 1, 16, 16, 16), annotated.repeat_interleave(2, 0))
    else:
        expected = squared_dice_ce(out.student[:2], target, target != 3)
    torch.testing.assert_close(terms["supervised_student"], expected)


def test_the_winner_of_the_released_script_makes_no_difference(make_dataset):
    trainer = started(make_dataset(), hyperparameters={"channel_dropout": 0.0})
    batch = batch_of(trainer)
    gradients = []
    for winner in ("student", "teacher"):
        trainer.network.zero_grad()
        terms = trainer.losses(*batch)
        own = {n: sum(v for k, v in terms.items() if k.endswith(n)) for n in ("student", "teacher")}
        own[winner] = own[winner] + terms["consistency"] + terms["uncertainty"]
        own["student"].backward(retain_graph=True)
        own["teacher"].backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in trainer.network.parameters()])
    assert any(g is not None and g.any() for g in gradients[0])
    for first, second in zip(*gradients, strict=True):
        assert (first is None) == (second is None)
        if first is not None:
            torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)
