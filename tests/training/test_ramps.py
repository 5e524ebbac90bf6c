import pytest

from nnunet_ssl.training.ramps import Ramp, linear_rampup, sigmoid_rampup


@pytest.mark.parametrize(
    "progress, expected",
    [(0, 0.006738), (0.1, 0.017422), (0.25, 0.060055), (0.4, 0.165299), (0.5, 0.286505), (0.75, 0.731616), (1, 1.0),
     (-1, 0.006738), (3, 1.0)],
)  # fmt: skip
def test_published_values(progress, expected):
    assert sigmoid_rampup(progress) == pytest.approx(expected, abs=1e-6)


def test_mean_teacher_weight_at_the_start():
    assert 0.1 * sigmoid_rampup(0.0) == pytest.approx(6.738e-4, rel=1e-3)


def test_linear_rampup():
    assert [linear_rampup(p) for p in (-1, 0, 0.25, 1, 2)] == [0, 0, 0.25, 1, 1]


def test_ramp_is_zero_in_the_warm_up_and_then_rises():
    ramp = Ramp(0.5, 0.25, curve=linear_rampup)
    assert [ramp.at(p, 100) for p in (0, 0.2, 0.25, 0.5, 0.75, 1)] == [0, 0, 0, 0.5, 1, 1]
    assert Ramp(1.0).at(0.3, 100) == sigmoid_rampup(0.3)
    assert [Ramp(0.0, 0.5).at(p, 100) for p in (0.4, 0.5, 1)] == [0, 1, 1]  # at once


def test_ramp_from_the_start_is_hidden_by_the_warm_up():
    ramp = Ramp(0.5, 0.25, from_start=True, curve=linear_rampup)
    assert [ramp.at(p, 100) for p in (0.2, 0.25, 0.5)] == [0, 0.5, 1]


def test_floor_in_steps_lengthens_what_is_there():
    ramp = Ramp(0.1, 0.1, floor=20, curve=linear_rampup)
    assert [ramp.at(p, 100) for p in (0.1, 0.2, 0.3, 0.4)] == pytest.approx([0, 0, 0.5, 1])
    assert [ramp.at(p, 10_000) for p in (0.1, 0.15, 0.2)] == pytest.approx([0, 0.5, 1])
    assert Ramp(0.1, floor=20, curve=linear_rampup).at(0.1, 100) == pytest.approx(0.5)  # no warm-up, so none grows
