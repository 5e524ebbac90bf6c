"""Features and what is remembered of their class: weights, classes that do not count, drawn voxels."""

from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.class_separation import class_separation, sample_features

FEATURES = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]]])  # the third does not count
MEMORY = torch.tensor([[[3.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
COUNTED = torch.tensor([[True, True, False]]), torch.tensor([[True, True, False]])
EVEN = torch.zeros(1, 3), torch.zeros(1, 3)


def test_mean_distance_and_weights():
    """Distances ((0, .29289322), (1, .29289322))."""
    assert class_separation(FEATURES, MEMORY, COUNTED, EVEN, 1).item() == pytest.approx(0.39644661)
    scores = torch.tensor([[0.0, math.log(3), 9.0]])  # sigmoids .5 and .75: weights .8 and 1.2
    found = class_separation(FEATURES, MEMORY, COUNTED, (scores, EVEN[1]), 1)
    assert found.item() == pytest.approx(0.44644661)
    of_memory = class_separation(FEATURES, MEMORY, COUNTED, (EVEN[0], scores), 1)
    assert of_memory.item() == pytest.approx(0.4 * 0.5 + 0.6 * 0.29289322)
    assert class_separation(FEATURES, MEMORY, COUNTED, EVEN, 3).item() == pytest.approx(0.39644661 / 3)


@pytest.mark.parametrize("of", [0, 1])
def test_a_class_needs_two_features_and_two_memories(of):
    features, scores = FEATURES.clone().requires_grad_(), EVEN[0].clone().requires_grad_()
    for number in (0, 1):
        few = torch.arange(3)[None] < number
        counted = (few, COUNTED[1]) if of == 0 else (COUNTED[0], few)
        loss = class_separation(features, MEMORY, counted, (scores, EVEN[1]), 1)
        gradients = torch.autograd.grad(loss, (features, scores))
        assert loss.item() == 0 and not any(g.any() for g in gradients)
    two = [torch.cat(pair) for pair in ((FEATURES, FEATURES), (MEMORY, MEMORY), (COUNTED[0], COUNTED[0] & False))]
    both = class_separation(two[0], two[1], (two[2], COUNTED[1].expand(2, 3)), (torch.zeros(2, 3),) * 2, 2)
    assert both.item() == pytest.approx(0.39644661 / 2)


def test_gradient_reaches_features_and_scores_and_is_right():
    torch.manual_seed(0)
    features, memory = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    scores = tuple(torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (5, 4))
    counted = torch.rand(2, 5) < 0.7, torch.ones(2, 4, dtype=torch.bool)
    direct = []
    for k in range(2):
        use = counted[0][k]
        a, b = scores[0][k][use].sigmoid(), scores[1][k].sigmoid()
        cosine = torch.nn.functional.cosine_similarity(features[k][use][:, None], memory[k][None], dim=2)
        direct.append(((1 - cosine) * (a / a.mean())[:, None] * (b / b.mean())).mean())
    found = class_separation(features, memory, counted, scores, 3)
    torch.testing.assert_close(found, torch.stack(direct).sum() / 3)
    wanted, mine = (torch.autograd.grad(x, (features, *scores)) for x in (torch.stack(direct).sum() / 3, found))
    torch.testing.assert_close(mine, wanted)


def test_voxels_are_drawn_from_the_masks():
    torch.manual_seed(0)
    features = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4).requires_grad_()
    masks = torch.zeros(2, 2, 4, dtype=torch.bool)
    masks[0, 0, 1], masks[1, 0] = True, True  # five voxels of the first class
    masks[1, 1, 2] = True  # one of the second, which is of the first, too
    rows, voxels, counted = sample_features(features, masks, 4)
    assert rows.shape == (2, 4, 3) and counted.tolist() == [[True] * 4, [True, False, False, False]]
    assert set(voxels[0].tolist()) < {1, 4, 5, 6, 7} and len(set(voxels[0].tolist())) == 4 and voxels[1, 0] == 6
    for row, voxel in zip(rows[0], voxels[0], strict=True):
        assert torch.equal(row, features[voxel // 4, :, voxel % 4])
    rows[1, 0].sum().backward()
    assert features.grad.nonzero().tolist() == [[1, 0, 2], [1, 1, 2], [1, 2, 2]]
    assert sample_features(features, masks, 50)[0].shape == (2, 8, 3)
