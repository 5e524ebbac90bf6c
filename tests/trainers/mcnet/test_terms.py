"""Which decoders learn what from each other, and on which patches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_ssl.losses.mutual_consistency import mutual_consistency
from nnunet_ssl.trainers.mcnet import trainer as module
from nnunet_ssl.training.deep_supervision import finest
from tests.trainers.inside import batch_of, in_second_step
from tests.trainers.registered import make_registered

pytestmark = pytest.mark.usefixtures("no_figures")
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 2, "seed": 1}


def started(dataset: Path, configuration: str = "2d", **hyperparameters: Any) -> Any:
    """At the end of its ramp, with decoders that do not agree."""
    options = {"rampup_fraction": 1e-6, "guard": False} | hyperparameters
    trainer = make_registered(
        dataset, "nnUNetTrainerMCNet", configuration, split="n2", training=TRAINING, hyperparameters=options
    )
    in_second_step(trainer)
    with torch.no_grad():
        for network in (trainer.network, *trainer.auxiliary.values()):
            for name, parameter in network.named_parameters():
                if "seg_layers" in name:
                    parameter.mul_(20)
    return trainer


def outputs_of(trainer: Any, images: torch.Tensor) -> list[list[torch.Tensor]]:
    features = trainer.network.encoder(images)
    return [decoder(features) for decoder in (trainer.network.decoder, *trainer.auxiliary.values())]


@pytest.mark.parametrize("decoders", [2, 3])
def test_terms_of_a_step(ready_dataset, decoders):
    trainer = started(ready_dataset(), decoders=decoders, consistency_weight=2.0)
    assert [*trainer.auxiliary] == ["second", "third"][: decoders - 1]
    labeled, unlabeled = batch_of(trainer)
    unlabeled.valid[0, :, :5] = False
    labeled.valid[1, :, :3] = False
    terms = trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        own, other = (outputs_of(trainer, images) for images in (labeled.image, unlabeled.weak))
        supervised = torch.stack([trainer.loss(z, labeled.target) for z in own]).mean()
        everything = [torch.cat([a[0], b[0]]) for a, b in zip(own, other, strict=True)]
        consistency = mutual_consistency(everything, 0.1, torch.cat([labeled.valid, unlabeled.valid]))
    assert len(own) == decoders and consistency > 0.01
    assert terms["supervised"].item() == pytest.approx(supervised.item(), rel=1e-5)
    assert terms["consistency"].item() == pytest.approx(2.0 * consistency.item(), rel=1e-5)
    assert terms.weights["consistency"] == 2.0


def test_two_decoders_are_the_first_two_of_three(ready_dataset):
    three, two = (started(ready_dataset(), decoders=n) for n in (3, 2))
    two.network.load_state_dict(three.network.state_dict())
    two.auxiliary["second"].load_state_dict(three.auxiliary["second"].state_dict())
    batch = batch_of(three)
    with_third = three.losses(*batch)
    del three.auxiliary["third"]
    without, expected = three.losses(*batch), two.losses(*batch)
    for name in ("supervised", "consistency"):
        assert without[name].item() == expected[name].item() != with_third[name].item()


def test_on_unlabelled_patches_alone(ready_dataset):
    trainer = started(ready_dataset(), consistency_on="unlabeled")
    labeled, unlabeled = batch_of(trainer)
    terms = trainer.losses(labeled, unlabeled)
    with torch.no_grad():
        expected = mutual_consistency([finest(z) for z in outputs_of(trainer, unlabeled.weak)], 0.1, unlabeled.valid)
    assert terms["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_options_reach_the_loss_and_the_weight_rises(ready_dataset, monkeypatch):
    seen: list[dict[str, Any]] = []

    def spy(logits: Any, temperature: float, **options: Any) -> torch.Tensor:
        seen.append({"temperature": temperature, **options})
        return mutual_consistency(logits, temperature, **options)

    monkeypatch.setattr(module, "mutual_consistency", spy)
    regions = {"labels": {"background": 0, "whole": (1, 2), "box": 2}, "regions_class_order": (1, 2)}
    trainer = started(ready_dataset(**regions), rampup_fraction=1.0, detach_target=False)
    terms = trainer.losses(*batch_of(trainer))  # half of the training is over
    assert terms.weights["consistency"] == pytest.approx(0.2865048)
    trainer = started(ready_dataset(), sharpening="channel", temperature=0.5)
    trainer.losses(*batch_of(trainer))
    chosen = [{k: v for k, v in options.items() if k != "mask"} for options in seen]
    assert chosen == [
        {"temperature": 0.1, "detach": False, "regions": True, "per_channel": False},
        {"temperature": 0.5, "detach": True, "regions": False, "per_channel": True},
    ]


def test_without_consistency_no_unlabelled_patch_is_looked_at(ready_dataset, monkeypatch):
    trainer = started(ready_dataset(), consistency_weight=0.0)
    seen, forward = [], trainer.forward
    monkeypatch.setattr(trainer, "forward", lambda network, images: seen.append(images) or forward(network, images))
    labeled, unlabeled = batch_of(trainer)
    assert [*trainer.losses(labeled, unlabeled)] == ["supervised"]
    assert seen[0] is labeled.image and len(seen[1][0]) == len(labeled)


def test_decoders_begin_with_weights_of_their_own_and_are_clipped_alone(ready_dataset):
    trainer = started(ready_dataset())
    first, second, third = (
        d.stages[0].convs[0].conv.weight for d in (trainer.network.decoder, *trainer.auxiliary.values())
    )
    assert not torch.equal(first, second) and not torch.equal(second, third)
    assert [len(group) for group in trainer.clipping_groups()] == [
        len([*n.parameters()]) for n in (trainer.network, *trainer.auxiliary.values())
    ]
