"""With `cpu_bfloat16` a trainer learns the same: the losses of the first step are those on record, about."""

from __future__ import annotations

import json

import pytest
import torch

from nnunet_ssl.training.network import channels_last
from tests.trainers.registered import KINDS, NAMES, make_registered, unguarded
from tests.trainers.stepping import steps
from tests.trainers.test_golden import FILE, TRAINING

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


@pytest.mark.parametrize("kind", ["2d", "3d"])
@pytest.mark.parametrize("name", NAMES)
def test_terms_of_the_first_step_are_about_the_same(ready_dataset, name, kind):
    recipe, configuration = KINDS[kind]
    training = {**TRAINING, "cpu_bfloat16": True}
    trainer = make_registered(
        ready_dataset(**recipe), name, configuration, split="n2", training=training, hyperparameters=unguarded(name)
    )
    (found,) = steps(trainer, 1)
    expected = json.loads(FILE.read_text())[name][kind][0]
    assert found["total"] == pytest.approx(expected["total"], rel=0.05, abs=0.05)
    for module in (trainer.network, *getattr(trainer, "auxiliary", {}).values()):
        maps = [p for p in module.parameters() if p.ndim in FORMATS]
        assert all(p.is_contiguous(memory_format=FORMATS[p.ndim]) for p in maps)


def test_values_stay_and_feature_maps_follow():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.InstanceNorm2d(4), torch.nn.Conv2d(4, 6, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(2, 1, 9, 9)
    expected = network(image)
    assert channels_last(network) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    found = network(image)
    assert not found.is_contiguous() and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
