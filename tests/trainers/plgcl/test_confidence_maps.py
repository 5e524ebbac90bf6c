"""Confidence of every voxel for every class, of labels and of predictions, with regions and ignored voxels."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.trainers.plgcl.confidence_maps import (
    class_probabilities,
    contrasted_pairs,
    joint_probabilities,
    label_probabilities,
)
from tests.live_memory import LiveMemory


def test_confidence_of_labels():
    target = torch.tensor([[0, 1], [2, 3]]).view(1, 1, 2, 2)
    guess = torch.full((1, 3, 2, 2), 1 / 3)
    known = label_probabilities(target, 3, ignore_label=3, guess=guess)
    assert known[0, :, 0, 0].tolist() == [1, 0, 0] and known[0, :, 1, 0].tolist() == [0, 0, 1]
    assert torch.equal(known[0, :, 1, 1], guess[0, :, 1, 1])
    assert not label_probabilities(target, 3)[0, :, 1, 1].any()


def test_confidence_of_regions():
    logits = torch.tensor([math.log(3.0), -math.log(3.0)]).view(1, 2, 1)
    assert class_probabilities(logits, True).flatten().tolist() == pytest.approx([0.25, 0.75, 0.25])
    target = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1]]).view(1, 3, 3)  # two regions and the ignore mask
    guess = torch.full((1, 3, 3), 0.4)
    known = label_probabilities(target, 3, True, 9, guess)
    assert known[0, :, 0].tolist() == [0, 1, 0] and known[0, :, 1].tolist() == [0, 1, 1]
    assert torch.equal(known[0, :, 2], guess[0, :, 2])
    without = label_probabilities(target[:, :2], 3, True)
    assert without[0, :, 2].tolist() == [1, 0, 0]


def test_nested_regions_are_no_negatives_of_each_other():
    pairs = contrasted_pairs([(1, 2, 3), (2, 3), (3,), (4,)])
    expected = torch.eye(5, dtype=torch.bool)
    expected[0] = expected[:, 0] = expected[4] = expected[:, 4] = True
    assert torch.equal(pairs, expected)


@pytest.mark.parametrize("regions", [False, True])
def test_maps_of_both_streams_are_written_once(regions):
    """They are the largest tensors of a step with many classes."""
    torch.manual_seed(0)
    size, classes = (32, 32, 32), 17
    logits = torch.randn(2, classes - regions, *size).half()
    target = torch.randint(0, 2, (2, 17, *size)) if regions else torch.randint(0, 18, (2, 1, *size))
    ignore = 99 if regions else 17
    guess = torch.rand(2, classes, *size)
    with LiveMemory() as memory:
        found = joint_probabilities(target, logits, regions, ignore, guess)
    first = label_probabilities(target, classes, regions, ignore, guess)
    second = class_probabilities(logits.float(), regions)
    torch.testing.assert_close(found, torch.cat([first, second]), atol=1e-6, rtol=1e-5)
    assert found.dtype == torch.float32 and memory.peak < 1.3 * found.nbytes
    logits, target = logits[:, :1], target[:, : 1 + regions]
    assert joint_probabilities(target, logits, regions, ignore, guess[:, : 1 + regions]).shape[1] == 1 + regions
