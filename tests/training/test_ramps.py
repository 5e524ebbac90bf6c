import pytest

from nnunet_ssl.training.ramps import sigmoid_rampup


@pytest.mark.parametrize(
    "progress, expected",
    [(0, 0.006738), (0.25, 0.060055), (0.5, 0.286505), (0.75, 0.731616), (1, 1.0), (-1, 0.006738), (3, 1.0)],
)
def test_published_values(progress, expected):
    assert sigmoid_rampup(progress) == pytest.approx(expected, abs=1e-6)


def test_mean_teacher_weight_at_the_start():
    assert 0.1 * sigmoid_rampup(0.0) == pytest.approx(6.738e-4, rel=1e-3)
