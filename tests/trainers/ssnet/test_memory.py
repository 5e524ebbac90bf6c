"""What is remembered of each class: the best of the last step that showed it."""

from __future__ import annotations

import torch

from nnunet_ssl.trainers.ssnet.memory import FeatureMemory


def test_the_best_scored_are_kept_best_first():
    memory = FeatureMemory(1, 32, 1)
    scores = torch.randperm(40, generator=torch.Generator().manual_seed(0)).float()
    memory.replace(scores.view(1, 40, 1), scores[None], torch.ones(1, 40, dtype=torch.bool))
    assert memory.vectors.flatten().tolist() == [float(s) for s in range(39, 7, -1)] and memory.filled.all()
    memory.replace(scores.view(1, 40, 1), scores[None], scores[None] < 3)
    assert memory.number.tolist() == [3] and memory.vectors[0, :3, 0].tolist() == [2.0, 1.0, 0.0]
    assert memory.filled.sum() == 3 and not memory.vectors[0, 3:].any()


def test_a_class_that_is_not_seen_keeps_what_it_has():
    memory = FeatureMemory(2, 3, 2)
    valid = torch.tensor([[True, True], [False, True]])
    memory.replace(torch.ones(2, 2, 2), torch.zeros(2, 2), valid)
    assert memory.number.tolist() == [2, 1]
    memory.replace(torch.full((2, 2, 2), 5.0), torch.zeros(2, 2), valid & torch.tensor([[False], [True]]))
    assert memory.number.tolist() == [2, 1] and memory.vectors[0, 0].tolist() == [1.0, 1.0]
    assert memory.vectors[1, 0].tolist() == [5.0, 5.0]


def test_what_is_not_a_number_is_not_remembered():
    memory = FeatureMemory(1, 2, 1)
    vectors = torch.tensor([[[float("nan")], [1.0]]])
    memory.replace(vectors, vectors[..., 0], torch.ones(1, 2, dtype=torch.bool))
    assert memory.number.tolist() == [1] and memory.vectors.flatten().tolist() == [1.0, 0.0]
