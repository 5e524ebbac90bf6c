"""Contrast between slices: closed forms, who learns, which slices take part."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.boundary_contrast import (
    boundary_contrast,
    collapse_value,
    distant_pairs,
    draw_slices,
    keep_slices,
    slice_similarities,
    take_slices,
)


def units(number: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(number, size, generator=g, dtype=torch.float64), dim=1)


def test_closed_forms():
    orthonormal = torch.eye(4, dtype=torch.float64)
    assert boundary_contrast(orthonormal, orthonormal).item() == pytest.approx(1.8746e-6, rel=1e-4)
    equal = orthonormal[:1].expand(4, 4)
    assert boundary_contrast(equal, equal).item() == pytest.approx(math.log(4)) == pytest.approx(1.386294)
    assert boundary_contrast(equal.half(), equal.half()).dtype == torch.float32


def test_the_student_alone_learns():
    teacher, student = units(5).requires_grad_(), units(5, seed=1).requires_grad_()
    boundary_contrast(teacher, student).backward()
    assert teacher.grad is None and student.grad.any()
    assert torch.autograd.gradcheck(lambda s: boundary_contrast(teacher, s), student)


def test_value_where_all_slices_are_alike():
    alike = units(1).expand(6, 6)
    keep, negatives = torch.tensor([True] * 5 + [False]), torch.ones(6, 6).triu(2).bool()
    for given in (keep, None), (keep, negatives):
        torch.testing.assert_close(boundary_contrast(alike, alike, 0.07, *given).float(), collapse_value(*given))
    assert collapse_value(keep).item() == pytest.approx(math.log(5))
    assert collapse_value(torch.tensor([True, False])).item() == 0


def test_fewer_than_two_slices_are_no_contrast():
    teacher, student = units(3), units(3, seed=1).requires_grad_()
    for keep in ([False] * 3, [False, True, False]):
        loss = boundary_contrast(teacher, student, keep=torch.tensor(keep))
        assert loss.item() == 0 and not torch.autograd.grad(loss, student)[0].any()
    assert boundary_contrast(teacher[:1], student[:1]).item() == 0


def test_the_order_of_the_slices_does_not_matter():
    teacher, student, order = units(6), units(6, seed=1), torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(
        boundary_contrast(teacher[order], student[order]), boundary_contrast(teacher, student), rtol=1e-12, atol=0
    )


def test_slices_that_are_not_kept_have_no_part():
    teacher, student = units(6), units(6, seed=1).requires_grad_()
    keep = torch.tensor([True, False, True, True, False, True])
    loss = boundary_contrast(teacher, student, keep=keep)
    torch.testing.assert_close(loss, boundary_contrast(teacher[keep], student[keep]))
    assert not torch.autograd.grad(loss, student)[0][~keep].any()


def test_dropped_negatives():
    teacher, student = units(3), units(3, seed=1)
    negatives = torch.ones(3, 3, dtype=torch.bool)
    negatives[0, 1] = negatives[0, 0] = False  # the positive stays all the same
    similarity = teacher @ student.T / 0.07
    first = similarity[0, [0, 2]].logsumexp(0) - similarity[0, 0]
    rest = similarity[1:].logsumexp(1) - similarity.diagonal()[1:]
    torch.testing.assert_close(boundary_contrast(teacher, student, negatives=negatives), (first + rest.sum()) / 3)
    index = torch.tensor([[0, 2, 9], [1, 5, 6]])
    pairs = distant_pairs(index, 2)
    near = {(i, j) for i in range(6) for j in range(6) if not pairs[i, j] and i < j}
    assert near == {(0, 1), (4, 5)}


def test_one_slice_of_each_bin():
    torch.manual_seed(0)
    index = draw_slices(200, 20, 8, torch.device("cpu"))
    assert index.shape == (200, 8)
    edges = torch.arange(9) * 2.5
    assert (index >= edges[:8].floor()).all() and (index < edges[1:].ceil()).all()
    assert sorted(set(index.flatten().tolist())) == list(range(20))
    assert draw_slices(3, 5, 8, torch.device("cpu")).tolist() == [[0, 1, 2, 3, 4]] * 3


def test_slices_are_taken_along_the_first_axis():
    maps = torch.arange(2 * 3 * 4 * 5 * 6).view(2, 3, 4, 5, 6)
    index = torch.tensor([[0, 3], [1, 2]])
    found = take_slices(maps, index)
    assert found.shape == (2, 2, 3, 5, 6)
    assert torch.equal(found[0, 1], maps[0, :, 3]) and torch.equal(found[1, 0], maps[1, :, 1])
    assert torch.equal(take_slices(maps[:, :, 0], None), maps[:, None, :, 0])


def test_kept_are_slices_with_an_object():
    distance = torch.ones(2, 3, 2, 4, 4)
    distance[0, 0, 1, 2, 2] = distance[0, 1, 0, 0, 0] = distance[1, 2, 0, 3, 3] = distance[1, 0, 0, 1, 1] = -0.1
    distance[0, 2] = 0.0  # a boundary alone is no object
    valid = torch.ones(2, 3, 1, 4, 4, dtype=torch.bool)
    valid[0, 1, 0, 0, 0] = False  # the one negative voxel
    valid[1, 0, 0, 0, 0] = valid[0, 0, 0, 0, 0] = False  # another one
    keep = keep_slices(distance, valid, torch.tensor([False, True]))
    assert keep.tolist() == [True, False, False, False, False, True]
    segmented = torch.zeros(2, 3, 2, 4, 4, dtype=torch.bool)
    segmented[0, 0, 0, 3, 3] = True  # of the other class
    segmented[1, 2, 0, 1, 1] = True  # of the same class, elsewhere
    keep = keep_slices(distance, valid, torch.tensor([False, True]), segmented)
    assert keep.tolist() == [False] * 5 + [True]


def test_similarities_of_positives_and_negatives():
    teacher, student = units(4), units(4, seed=1)
    keep, near = torch.tensor([True, True, False, True]), torch.ones(4, 4, dtype=torch.bool)
    near[0, 1] = near[1, 0] = False
    similarity, kept = teacher @ student.T, [0, 1, 3]
    for negatives, pairs in (
        (None, [(a, b) for a in kept for b in kept if a != b]),
        (near, [(0, 3), (3, 0), (1, 3), (3, 1)]),
    ):
        (positive, number), (negative, others) = slice_similarities(teacher, student, keep, negatives)
        torch.testing.assert_close(positive, torch.stack([similarity[a, a] for a in kept]).mean())
        torch.testing.assert_close(negative, torch.stack([similarity[a, b] for a, b in pairs]).mean())
        assert (number.item(), others.item()) == (3, len(pairs))
    found = slice_similarities(teacher, student, torch.zeros(4, dtype=torch.bool))
    assert all(value == count == 0 for value, count in found)
