"""Class-aware patch sampling: scores, presence, anchors, neighbours, cutting, and the options of PLGCL's Table 3."""

from __future__ import annotations

import pytest
import torch

from nnunet_ssl.trainers.plgcl.confidence_maps import class_probabilities
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid, plan_grid
from nnunet_ssl.trainers.plgcl.patch_sampling import (
    WindowScores,
    candidates,
    cut_attended,
    draw_anchors,
    draw_classes,
    nearest,
    score_windows,
    select_windows,
    window_sums,
)

ROW = PatchGrid(stage=0, size=(4, 4), starts=((0,), (0, 4, 8, 12, 16, 20)))  # six windows in a row


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_windows(values: list[float], channels: int = 1) -> torch.Tensor:
    """(1, channels, 4, 24): one value per window of ROW."""
    return torch.tensor(values).repeat_interleave(4).expand(1, channels, 4, -1).clone()


def score(unit, confidence, grid=ROW, valid=None, **options) -> WindowScores:
    """Of class 1 of two, with the given confidence."""
    maps = torch.cat([1 - confidence, confidence], 1)
    valid = torch.ones_like(confidence) if valid is None else valid
    return score_windows(unit, maps, valid, grid, **options)


# ---- scores


@pytest.mark.parametrize("unit, c, expected", [(0.5, 1.0, 0.693147), (1.0, 1.0, 0.0), (0.1, 1.0, 0.325083)])
def test_entropy_of_a_constant_window(unit, c, expected):
    found = score(in_windows([unit] * 6), in_windows([c] * 6))
    torch.testing.assert_close(found.entropy[0, 1], torch.full((6,), expected), atol=1e-6, rtol=0)


def test_half_of_the_window_without_the_class():
    confidence = in_windows([1.0] * 6)
    confidence[:, :, 2:] = 0.0
    found = score(in_windows([0.5] * 6), confidence)
    torch.testing.assert_close(found.entropy[0, 1], torch.full((6,), 0.346574), atol=1e-6, rtol=0)
    assert (found.confidence[0] == 0.5).all() and (found.voxels[0] == 8).all()


# intensity, confidence and entropy of the six windows A to F of the specification, section c.5
INTENSITY, CONFIDENCE = [0.98, 0.95, 0.60, 0.98, 0.90, 0.30], [1.0, 1.0, 1.0, 0.5, 0.02, 0.0]
ENTROPY = [0.0980, 0.1985, 0.6730, 0.6929, 0.0901, 0.0]
A, B, C, D, E, LAST = range(6)


def six_windows() -> tuple[torch.Tensor, torch.Tensor, WindowScores]:
    confidence = in_windows(CONFIDENCE)
    # the other class is certain, so that D's hard label is class 1 in a tie
    confidence[..., 12:16] = 0.5 + 1e-6
    unit = in_windows(INTENSITY)
    return unit, torch.cat([1 - confidence, confidence], 1), score(unit, confidence)


def test_the_six_windows():
    _, _, found = six_windows()
    torch.testing.assert_close(found.entropy[0, 1], torch.tensor(ENTROPY), atol=5e-5, rtol=0)
    torch.testing.assert_close(found.confidence[0, 1], torch.tensor(CONFIDENCE), atol=1e-5, rtol=0)
    assert found.voxels[0, 1].tolist() == [16, 16, 16, 16, 0, 0]


def test_only_the_presence_filter_keeps_absent_windows_from_being_positives():
    _, _, found = six_windows()
    distance = (found.entropy[0, 1] - found.entropy[0, 1, A]).abs()[None]
    anchor = torch.tensor([A])
    order, valid = nearest(distance, torch.ones(1, 6, dtype=torch.bool), anchor, 5)
    assert order.tolist() == [[A, E, LAST, B, C, D]] and valid.all()
    suited = candidates(found)[1:]
    assert suited.tolist() == [[True, True, True, True, False, False]]
    order, valid = nearest(distance, suited, anchor, 5)
    assert order[0, :4].tolist() == [A, B, C, D] and valid.tolist() == [[True] * 4 + [False] * 2]


def test_channels_are_attended_alike_and_averaged():
    unit = torch.cat([in_windows([0.5] * 6), in_windows([1.0] * 6)], 1)
    found = score(unit, in_windows([1.0] * 6))
    torch.testing.assert_close(found.entropy[0, 1], torch.full((6,), 0.693147 / 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("crop", [(19, 22), (13, 9, 16)])
def test_window_sums_are_sums_over_the_windows(crop):
    grid = plan_grid(crop, [[1] * len(crop), [2] * len(crop)], 1, 20)
    x = torch.rand(2, 3, *crop, generator=chance())
    sums = window_sums(x, grid)
    assert sums.shape == (2, 3, grid.number)
    every = torch.arange(2 * grid.number)
    cut = cut_attended(x, torch.ones(2, 1, *crop), grid, every, torch.zeros_like(every))
    assert cut.shape == (2 * grid.number, 3, *grid.size)
    torch.testing.assert_close(sums.transpose(1, 2).flatten(0, 1), cut.flatten(2).sum(2))
    starts = [s[-1] for s in grid.starts]
    corner = x[(slice(None), slice(None), *[slice(s, s + p) for s, p in zip(starts, grid.size, strict=True)])]
    torch.testing.assert_close(sums[..., -1], corner.flatten(2).sum(2))


# ---- candidates


def hand_made(voxels: list[list[float]], valid: list[float] | None = None) -> WindowScores:
    count = torch.tensor([voxels])
    share = torch.tensor([valid or [1.0] * count.shape[2]])
    return WindowScores(count / 100, torch.zeros_like(count), count, share)


def test_presence_needs_ten_voxels_a_tenth_of_the_best_window_and_half_of_it_valid():
    scores = hand_made([[9, 10, 11, 50], [60, 19, 20, 200]], [1.0, 1.0, 1.0, 1.0])
    assert candidates(scores).tolist() == [[False, True, True, True], [True, False, True, True]]
    scores = hand_made([[50, 50, 50, 50]], [0.49, 0.5, 1.0, 0.0])
    assert candidates(scores).tolist() == [[False, True, True, False]]


def test_presence_may_be_off():
    scores = hand_made([[0, 1, 5, 50]], [1.0, 1.0, 1.0, 0.4])
    for voxels, share, expected in ((0, 0.0, [1, 1, 1, 0]), (1, 0.0, [0, 1, 1, 0]), (0, 0.1, [0, 0, 1, 0])):
        assert candidates(scores, voxels, share).int().tolist() == [expected]
    unit, confidence, grid, scores = random_batch()
    absent = scores._replace(voxels=torch.zeros_like(scores.voxels))
    assert select_windows(absent, unit, confidence, grid, chance()).candidates.tolist() == [0, 0, 0]
    found = select_windows(absent, unit, confidence, grid, chance(), min_voxels=0, min_share=0.0)
    assert found.candidates.tolist() == [4 * grid.number] * 3 and found.valid.all()


def test_fewer_than_two_candidates_give_nothing():
    unit = in_windows(INTENSITY)
    for present, expected in (([1.0, 0, 0, 0, 0, 0], 0), ([1.0, 1.0, 0, 0, 0, 0], 2)):
        c = in_windows(present)
        maps = torch.cat([1 - c, c], 1)
        found = select_windows(score(unit, c), unit, maps, ROW, chance(), neighbours=20)
        assert found.windows.shape == (2, 21) and found.valid[1].sum() == expected
        assert found.valid[0].sum() == 6 - sum(present)
    assert found.windows.max() < 6 and found.classes.tolist() == [0, 1]


# ---- anchors, classes, neighbours


def test_anchors_are_drawn_in_proportion_to_the_confidence():
    average = torch.tensor([[0.6, 0.2, 0.1, 0.1, 0.9]]).expand(4000, -1)
    suited = torch.tensor([[True, True, True, False, False]]).expand(4000, -1)
    drawn = draw_anchors(average, suited, "confidence", chance()).bincount(minlength=5) / 4000
    torch.testing.assert_close(drawn, torch.tensor([6 / 9, 2 / 9, 1 / 9, 0, 0]), atol=0.03, rtol=0)
    drawn = draw_anchors(average, suited, "uniform", chance()).bincount(minlength=5) / 4000
    torch.testing.assert_close(drawn, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0]), atol=0.03, rtol=0)
    assert (draw_anchors(average, suited, "max", chance()) == 0).all()


def test_neighbours_are_the_closest_candidates_with_ties_by_index():
    distance = torch.tensor([[0.3, 0.0, 0.1, 0.0, 0.1, 0.2], [0.0, 0.5, 0.4, 0.3, 0.2, 0.1]])
    suited = torch.tensor([[True] * 6, [True, True, False, True, False, True]])
    order, valid = nearest(distance, suited, torch.tensor([3, 0]), 3)
    assert order.tolist() == [[3, 1, 2, 4], [0, 5, 3, 1]] and valid.all()
    order, valid = nearest(distance, suited, torch.tensor([3, 0]), 9)
    assert order.shape == valid.shape == (2, 10) and valid.sum(1).tolist() == [6, 4]


def test_classes_are_drawn_among_those_present():
    present = torch.tensor([True, False, True, True, False, True, True])
    seen = set()
    for seed in range(40):
        chosen, drawn = draw_classes(present, 3, chance(seed))
        assert drawn.all() and present[chosen].all() and len(set(chosen.tolist())) == 3
        seen |= set(chosen.tolist())
    assert seen == {0, 2, 3, 5, 6}
    chosen, drawn = draw_classes(present, 6, chance())
    assert drawn.sum() == 5 and torch.equal(drawn, present[chosen])
    assert draw_classes(present, 8, chance())[0].tolist() == [*range(7)]


def random_batch(classes: int = 3):
    unit = torch.rand(4, 2, 32, 32, generator=chance(1))
    confidence = class_probabilities(3 * torch.randn(4, classes, 32, 32, generator=chance(2)))
    grid = plan_grid([32, 32], [[1, 1], [2, 2]], 4, 20)
    return unit, confidence, grid, score_windows(unit, confidence, torch.ones(4, 1, 32, 32), grid)


@pytest.mark.parametrize("similarity", ["entropy", "confidence", "cosine"])
def test_selection_by_each_similarity(similarity):
    unit, confidence, grid, scores = random_batch()
    found = select_windows(scores, unit, confidence, grid, chance(5), neighbours=6, similarity=similarity)
    suited = candidates(scores)
    for k in range(3):
        own = suited[k].nonzero().flatten().tolist()
        anchor, *positives = found.windows[k].tolist()
        assert found.valid[k].sum() == min(7, len(own)) >= 7 and {anchor, *positives} <= set(own)
        if similarity == "cosine":
            every = torch.arange(4 * grid.number)
            x = cut_attended(unit, confidence, grid, every, torch.full_like(every, k)).flatten(1).double()
            value = [1 - torch.cosine_similarity(x[anchor], row, dim=0).item() for row in x]
        else:
            flat = getattr(scores, similarity)[:, k].flatten()
            value = (flat - flat[anchor]).abs().tolist()
        left = [value[j] for j in own if j not in (anchor, *positives)]
        assert left and max(value[j] for j in positives) <= min(left) + 1e-6


def test_the_generator_is_the_only_source_of_chance():
    unit, confidence, grid, scores = random_batch(classes=5)
    generator = chance(3)
    state = generator.get_state()
    torch.manual_seed(0)
    first = select_windows(scores, unit, confidence, grid, generator, max_classes=3)
    other = select_windows(scores, unit, confidence, grid, generator, max_classes=3)
    generator.set_state(state)
    torch.manual_seed(1)
    again = select_windows(scores, unit, confidence, grid, generator, max_classes=3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_patches_are_cut_from_the_attended_image():
    unit, confidence, grid, _ = random_batch()
    windows, classes = torch.tensor([0, 3 * grid.number + 9]), torch.tensor([2, 1])
    found = cut_attended(unit, confidence, grid, windows, classes)
    row, column = divmod(9, len(grid.starts[1]))
    y, x = grid.starts[0][row], grid.starts[1][column]
    (p, q), attended = grid.size, unit[3] * confidence[3, 1]
    assert torch.equal(found[1], attended[:, y : y + p, x : x + q])
    assert torch.equal(found[0], unit[0, :, :p, :q] * confidence[0, 2, :p, :q])


def test_a_voxel_counts_for_every_region_it_belongs_to():
    unit, regions = (
        in_windows([0.5] * 6),
        torch.cat([in_windows([0, 1, 1, 1, 0, 0]), in_windows([0, 0, 1, 0, 0, 0])], 1),
    )
    maps = torch.cat([1 - regions.amax(1, keepdim=True), regions], 1)
    found = score_windows(unit, maps, torch.ones(1, 1, 4, 24), ROW, has_regions=True)
    assert (found.voxels[0] / 16).tolist() == [[1, 0, 0, 0, 1, 1], [0, 1, 1, 1, 0, 0], [0, 0, 1, 0, 0, 0]]


def test_padding_lowers_the_valid_share():
    valid = in_windows([1, 0, 1, 1, 1, 1])
    valid[:, :, 2:, 8:12] = 0
    found = score(in_windows([0.5] * 6), in_windows([1.0] * 6), valid=valid)
    assert found.valid.tolist() == [[1, 0, 0.5, 1, 1, 1]]
    assert candidates(found)[1].tolist() == [True, False, True, True, True, True]
