"""LDC and CMAformer: how fast volume multipliers rise and fall, and what the decoder costs in operations."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nnunet_ssl.architectures.cmaformer import CMAformer
from nnunet_ssl.trainers.ldc.dual_ascent import LABELED, DualAscent
from nnunet_ssl.trainers.ldc.settings import LDCHyperparameters
from tests.audit.counting import STANDARD_2D, STANDARD_3D, Plan, cost, unet_cost

# ---- multipliers


class Multiplier:
    """That of one of three classes, under the rule of the trainer."""

    def __init__(self, **settings: Any) -> None:
        net = nn.Conv2d(1, 1, 1)
        targets: Any = SimpleNamespace(foreground=[(1,), (2,)], has_regions=False)
        optimizer = torch.optim.SGD(net.parameters(), 0.0)
        self.dual = DualAscent(net, optimizer, targets, LDCHyperparameters(**settings), torch.device("cpu"))
        self.dual.begin()
        self.dual.stepped = True

    @property
    def value(self) -> float:
        return self.dual.multipliers.volume[LABELED][0].item()

    @value.setter
    def value(self, number: float) -> None:
        self.dual.multipliers.volume[LABELED][0] = number

    def ascend(self, predicted: float, expected: float, ramp: float) -> float:
        """Its change in a step with this volume and this target."""
        before = self.value
        shares = [predicted, 0.0, expected, 0.0, 1.0]
        self.dual.values = {part: torch.tensor(shares, dtype=torch.float64) for part in self.dual.multipliers.volume}
        self.dual.ascend(ramp)
        return self.value - before


def steps_to_undo(wound_up: float, share: float, ramp: float = 1.0, **settings: Any) -> int:
    """Steps until the multiplier of a class of this share, of which nothing is predicted, is no longer positive."""
    multiplier = Multiplier(**settings)
    multiplier.value, count = wound_up, 0
    while multiplier.value > 1e-12:
        multiplier.ascend(0.0, share, ramp)
        count += 1
    return count


PLAIN: dict[str, Any] = {"ascent": "plain", "multiplier_limit": 0.5}


def test_the_plain_rule_winds_up_on_an_untrained_network():
    """By tau / K = 3e-3 in a step with three classes, and from the first step on."""
    assert Multiplier(**PLAIN).ascend(1 / 3, 0.0, ramp=0.0) == pytest.approx(3e-3, abs=4e-4)
    assert Multiplier(**PLAIN).ascend(1 / 3, 0.007, ramp=0.0) < 3.4e-3


def test_the_plain_rule_takes_a_thousand_steps_to_undo_it():
    """1,140 for a class of 0.7 %; a class of 0.01 % goes down by 1e-6 in a step, so that it takes 80,000."""
    assert steps_to_undo(0.08, 0.007, **PLAIN) == pytest.approx(1140, abs=5)
    assert 0.08 / -Multiplier(**PLAIN).ascend(0.0, 1e-4, 1.0) == pytest.approx(80_000)


def test_the_default_rule_stands_still_in_the_warm_up_and_comes_down_as_fast_as_it_went_up():
    assert Multiplier().ascend(1 / 3, 0.0, ramp=0.0) == 0.0
    for share in (0.043, 0.007, 0.001):
        assert Multiplier().ascend(3 * share, share, 1.0) == pytest.approx(-Multiplier().ascend(share, 3 * share, 1.0))
        assert steps_to_undo(0.08, share, multiplier_limit=0.5) == 8
        assert steps_to_undo(0.05, share) == 5  # the default's limit
        assert steps_to_undo(0.05, share, ramp=0.1) == 50
    assert steps_to_undo(0.08, 1e-4, multiplier_limit=0.5) == 80  # below the least volume, 0.1 %
    wound = Multiplier()
    for _ in range(100):
        wound.ascend(1 / 3, 0.007, 1.0)
    assert wound.value == 0.05


# ---- operations


@cache
def multiplications(plan: Plan, lite: bool | None) -> float:
    """Billions of multiplications and additions of a forward, as one each."""
    sizes = plan.features, plan.strides, plan.kernels
    return cost(lambda: CMAformer(1, 3, plan.patch, *sizes, lite=lite), plan)[0] / 2e9


def test_the_light_decoder_in_2d_costs_a_third_of_the_whole_one():
    """512 x 512, 32 to 512 features: 219 whole, 66 as it is by default, 60 of nnU-Net's U-Net."""
    whole, light = multiplications(STANDARD_2D, False), multiplications(STANDARD_2D, None)
    unet = unet_cost(STANDARD_2D)[0] / 2e9
    assert [whole, light, unet] == pytest.approx([219, 66, 60], abs=0.5)
    assert light / unet == pytest.approx(1.1, abs=0.02)


def test_the_light_decoder_in_3d_costs_a_fifth_of_the_whole_one():
    """128^3: 6.6 times nnU-Net's operations against 1.2 times."""
    unet = unet_cost(STANDARD_3D)[0] / 2e9
    ratios = [multiplications(STANDARD_3D, lite) / unet for lite in (False, None)]
    assert ratios == pytest.approx([6.6, 1.2], abs=0.02)
