from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.trainers.dkuxnet.network import group_sizes
from nnunet_ssl.trainers.dkuxnet.query_perplexity import query_perplexity


def test_used_queries_by_hand():
    responses = torch.zeros(2, 4, 2, 2)
    responses[:, 1] = 1.0
    assert [x.item() for x in query_perplexity(responses, [2, 2])] == pytest.approx([1.0, 1.0])
    responses[1, 3] = 2.0  # one query of each group
    assert [x.item() for x in query_perplexity(responses, [2, 2])] == pytest.approx([2.0, 1.0])
    assert [x.item() for x in query_perplexity(responses, [1, 3])] == pytest.approx([2.0, 2.0])
    responses[1, 0, 0] = 3.0  # shares 1/4, 1/2, 0, 1/4
    entropies = 1.5 * math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    expected = [math.exp(entropies[0]), math.exp(entropies[0] - entropies[1])]
    assert [x.item() for x in query_perplexity(responses, [2, 2])] == pytest.approx(expected)
    assert query_perplexity(10 * torch.eye(5)[None], [1, 4])[0].item() == pytest.approx(5.0)


def test_one_query_per_class_counts_as_one_however_unequal_the_classes():
    responses = torch.zeros(1, 8, 1000)
    responses[:, 0, :880], responses[:, 5, 880:] = 1.0, 1.0
    used, per_group = query_perplexity(responses, [4, 4])
    assert used.item() == pytest.approx(1.44, abs=0.01) and per_group.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("queries", "groups", "sizes"),
    [
        (32, 2, [16, 16]),
        (32, 3, [16, 4, 12]),
        (128, 3, [64, 16, 48]),
        (7, 2, [3, 4]),
        (8, 3, [4, 1, 3]),
        (32, 5, [16, 4, 4, 4, 4]),
        (33, 5, [16, 4, 4, 4, 5]),
    ],
)
def test_group_sizes(queries, groups, sizes):
    assert group_sizes(queries, groups) == sizes and sum(sizes) == queries
