import pytest

from nnunet_ssl.training.ramps import linear_rampup, sigmoid_rampup


@pytest.mark.parametrize(
    "progress, expected",
    [(0, 0.006738), (0.25, 0.060055), (0.5, 0.286505), (0.75, 0.731616), (1, 1.0), (-1, 0.006738), (3, 1.0)],
)
def test_published_values(progress, expected):
    assert sigmoid_rampup(progress) == pytest.approx(expected, abs=1e-6)


def test_mean_teacher_weight_at_the_start():
    assert 0.1 * sigmoid_rampup(0.0) == pytest.approx(6.738e-4, rel=1e-3)


def test_linear_rampup():
    assert [linear_rampup(p) for p in (-1, 0, 0.25, 1, 2)] == [0, 0, 0.25, 1, 1]
    assert [linear_rampup(p, 0.5) for p in (0.2, 0.5, 0.75, 1)] == [0, 0, 0.5, 1]
    assert linear_rampup(1, 1) == linear_rampup(0.5, 1) == 0
