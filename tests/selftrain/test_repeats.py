"""The share of labelled cases, by repetition."""

from __future__ import annotations

import pytest

from nnunet_ssl.selftrain.repeats import repeats


@pytest.mark.parametrize(
    ("share", "pseudo", "labeled", "expected"),
    [
        (0.5, 2000, 50, 40),
        (0.5, 10, 20, 1),
        (0.5, 0, 20, 1),
        (0.0, 2000, 50, 1),
        (0.5, 41, 20, 3),  # 2.05 rounded up
        (0.75, 10, 10, 3),
        (0.9, 10, 10, 9),  # 0.9 / (1 - 0.9) is 9.000000000000002
    ],
)
def test_repeats(share, pseudo, labeled, expected):
    number = repeats(share, pseudo, labeled)
    assert number == expected
    assert number * labeled / (number * labeled + pseudo) >= share - 1e-12
