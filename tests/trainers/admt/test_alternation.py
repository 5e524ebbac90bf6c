from __future__ import annotations

from itertools import pairwise

import torch

from nnunet_ssl.trainers.admt.alternation import Alternation


def turns(alternation: Alternation, steps: int) -> list[bool]:
    found = []
    for _ in range(steps):
        found.append(alternation.second)
        alternation.advance()
    return found


def periods(found: list[bool]) -> list[int]:
    """Lengths of the complete ones."""
    changes = [i for i, (a, b) in enumerate(pairwise(found), 1) if a != b]
    return [b - a for a, b in zip([0, *changes], changes, strict=False)]


def test_periods_of_random_length_beginning_with_the_first():
    found = turns(Alternation(5, 0), 3000)
    lengths = periods(found)
    assert found[0] is False and set(lengths) == {1, 2, 3, 4, 5}
    assert abs(sum(lengths) / len(lengths) - 3) < 0.15


def test_a_longest_period_of_one_step_alternates():
    assert turns(Alternation(1, 0), 4) == [False, True, False, True]


def test_equal_seeds_agree_and_the_state_continues():
    first, second, other = Alternation(9, 3), Alternation(9, 3), Alternation(9, 4)
    assert turns(first, 200) == turns(second, 200) != turns(other, 200)
    state = first.state()
    expected = turns(first, 100), first.beta()
    other.restore(state)
    assert (turns(other, 100), other.beta()) == expected


def test_the_median_of_seven_is_beta():
    alternation = Alternation(1, 0)
    drawn = torch.tensor([alternation.beta() for _ in range(4000)])
    assert abs(drawn.mean().item() - 0.5) < 0.01 and abs(drawn.var().item() - 1 / 36) < 0.002
