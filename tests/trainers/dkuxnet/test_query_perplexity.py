from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.trainers.dkuxnet.network import group_sizes
from nnunet_ssl.trainers.dkuxnet.query_perplexity import query_perplexity


def test_used_queries_by_hand():
    responses = torch.zeros(2, 4, 2, 2)
    responses[:, 1] = 1.0
    assert query_perplexity(responses).item() == pytest.approx(1.0)
    responses[1, 3] = 2.0
    assert query_perplexity(responses).item() == pytest.approx(2.0)
    responses[1, 0, 0] = 3.0  # shares 1/2, 1/4, 1/4
    assert query_perplexity(responses).item() == pytest.approx(math.exp(1.5 * math.log(2)))
    assert query_perplexity(10 * torch.eye(5)[None]).item() == pytest.approx(5.0)


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
