"""With `cpu_bfloat16` a trainer learns the same: the losses of the first step are those on record, about."""

from __future__ import annotations

import json

import pytest
import torch

from nnunet_ssl.training.network import for_bfloat16_on_cpu
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


def test_gradients_of_two_slices_are_right():
    """PyTorch's own in bfloat16 read memory that nobody has written, here filled with NaN."""
    torch.manual_seed(0)
    plain, network = torch.nn.Conv3d(16, 16, 3, padding=1), torch.nn.Conv3d(16, 16, 3, padding=1)
    network.load_state_dict(plain.state_dict())
    image = torch.randn(8, 16, 2, 4, 4)
    plain(image).square().mean().backward()
    for_bfloat16_on_cpu(network)
    for _ in range(20):
        for number in (6912, 13824, 1000):
            torch.full((number,), torch.nan)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            answer = network(image)
        answer.float().square().mean().backward()
        torch.testing.assert_close(network.weight.grad, plain.weight.grad)


def test_values_stay_and_feature_maps_follow():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.InstanceNorm2d(4), torch.nn.Conv2d(4, 6, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    image = torch.randn(2, 1, 9, 9)
    expected = network(image)
    assert for_bfloat16_on_cpu(network) is network
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    found = network(image)
    assert not found.is_contiguous() and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)
