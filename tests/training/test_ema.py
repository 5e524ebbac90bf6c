from __future__ import annotations

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ssl.training.ema import update_ema
from tests.tiny import Tiny, plans_of


def plans_network() -> nn.Module:
    manager = PlansManager(plans_of(Tiny()))
    return nnUNetTrainer.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3)


@torch.no_grad()
def fill(module: nn.Module, value: float) -> None:
    for parameter in module.parameters():
        parameter.fill_(value)


def test_one_step_from_zeros_moves_every_tensor_by_a_thousandth():
    # a walk over state_dict() would move encoder tensors by 1 - 0.999^4 = 0.003994
    averaged, model = plans_network(), plans_network()
    fill(averaged, 0.0)
    fill(model, 1.0)
    update_ema(averaged, model, 0.999)
    for name, tensor in averaged.state_dict().items():
        torch.testing.assert_close(tensor, torch.full_like(tensor, 0.001), msg=name)


@pytest.mark.parametrize(
    "decay, steps, expected",
    [(0.999, 250, 0.221297), (0.999, 1000, 0.632305), (0.99, 69, 0.500163), (0.99, 100, 0.633968),
     (0.99, 230, 0.900895)],
)  # fmt: skip
def test_many_steps_follow_the_closed_form(decay, steps, expected):
    averaged, model = nn.Linear(2, 2), nn.Linear(2, 2)
    fill(averaged, 0.0)
    fill(model, 1.0)
    for _ in range(steps):
        update_ema(averaged, model, decay)
    assert averaged.weight[0, 0].item() == pytest.approx(expected, abs=1e-5 if decay == 0.999 else 1e-6)


def test_decay_one_keeps_and_decay_zero_copies():
    averaged, model = nn.Linear(3, 2), nn.Linear(3, 2)
    before = averaged.weight.clone()
    update_ema(averaged, model, 1.0)
    assert torch.equal(averaged.weight, before)
    update_ema(averaged, model, 0.0)
    assert torch.equal(averaged.weight, model.weight)


def test_model_is_untouched_and_no_graph_is_recorded():
    averaged, model = nn.Linear(3, 2), nn.Linear(3, 2)
    before = model.weight.clone()
    update_ema(averaged, model, 0.5)
    assert torch.equal(model.weight, before)
    assert averaged.weight.grad_fn is None


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="decay"):
        update_ema(nn.Linear(1, 1), nn.Linear(1, 1), 1.5)
    with pytest.raises(ValueError, match="same parameters"):
        update_ema(nn.Linear(1, 1), nn.Linear(2, 1), 0.5)
