from __future__ import annotations

import pytest
import torch

from nnunet_ssl.data.mixing import CutMix, draw_boxes, draw_clipped_boxes, mix

UNIMATCH = (0.02, 0.4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def boxes(batch: int, patch: tuple[int, ...], fraction=UNIMATCH, aspect=1 / 0.3, probability=1.0, seed=0):
    return draw_boxes(batch, patch, fraction, aspect, probability, generator(seed), "cpu")


def edges(box: torch.Tensor) -> torch.Tensor:
    """(B, axes) lengths of boxes, and that they are boxes: the product of their edges is their volume."""
    axes = range(1, box.ndim - 1)
    profiles = [box[:, 0].sum([other for other in axes if other != axis]) for axis in axes]
    found = torch.stack([profile.count_nonzero(1) for profile in profiles], 1)
    assert torch.equal(found.prod(1), box.flatten(1).sum(1))
    return found


@pytest.mark.parametrize("patch", [(64, 96), (40, 48, 56), (5, 64, 64)], ids=str)
def test_one_box_inside_each_patch_with_its_share(patch):
    box = boxes(400, patch)
    found = edges(box)
    share = box.flatten(1).float().mean(1)
    assert box.shape == (400, 1, *patch) and (found > 0).all()
    assert share.min() > 0.012 and share.max() <= 0.4 + 1e-6
    assert share.mean().item() == pytest.approx(0.205, abs=0.015)
    if patch[0] == 5:
        assert (found[:, 0] == 5).all()  # a thin axis is never cut
    first = box[:, 0].flatten(1)[:, 0]
    assert 0 < first.float().mean() < 0.2  # corners are reached, not preferred


def test_shares_up_to_the_whole_patch():
    large = boxes(200, (48, 48), (0.3, 0.6)).flatten(1).float().mean(1)
    assert large.min() > 0.27 and large.max() <= 0.6 and large.mean().item() == pytest.approx(0.44, abs=0.02)
    assert boxes(3, (16, 12), (1.0, 1.0)).all()
    assert boxes(3, (16, 12, 9), (1.0, 1.0)).all()


@pytest.mark.parametrize(
    ("patch", "inside", "part"),
    [
        ((112, 112, 80), (74, 74, 53), 0.28921),
        ((256, 256), (170, 170), 0.44098),
        ((96, 96, 96), (64, 64, 64), 0.29630),
        ((128, 128, 128), (85, 85, 85), 0.29284),
        ((224, 256), (149, 170), 0.44172),
        ((40, 56, 40), (26, 37, 26), 0.27915),
    ],
    ids=str,
)
def test_boxes_of_two_thirds(patch, inside, part):
    """BCP's: every edge has floor(2/3 P) voxels."""
    share = (2 / 3) ** len(patch)
    box = boxes(2, patch, (share, share), 1.0)
    assert edges(box).tolist() == [[*inside]] * 2
    assert box.sum().item() / box.numel() == pytest.approx(part, abs=5e-6)


def test_proportions_lie_within_the_aspect():
    found = edges(boxes(300, (100, 100), (0.05, 0.1), 3.0)).double()
    ratio = found[:, 0] / found[:, 1]
    assert ratio.min() > 0.28 and ratio.max() < 3.5 and (ratio > 2).any() and (ratio < 0.6).any()


def test_probability_of_a_box():
    assert not boxes(50, (16, 16), probability=0.0).any()
    share = boxes(2000, (16, 16), probability=0.5).flatten(1).any(1).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.04)


def test_the_generator_decides():
    first, again, other = boxes(8, (32, 32)), boxes(8, (32, 32)), boxes(8, (32, 32), seed=1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(b.flatten().tolist()) for b in first}) == 8  # one box per sample
    own = generator()
    state = own.get_state()
    draws = [draw_boxes(2, (32, 32), UNIMATCH, 2.0, 0.5, own, "cpu") for _ in range(2)]
    own.set_state(state)
    assert torch.equal(draws[0], draw_boxes(2, (32, 32), UNIMATCH, 2.0, 0.5, own, "cpu"))
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    boxes(2, (32, 32))
    assert torch.equal(torch.rand(1), expected)  # no other random number was drawn


def test_clipped_boxes_have_the_shares_of_their_source():
    drawn = [
        draw_clipped_boxes(1 - lam, 16, (64, 64), own, "cpu").flatten(1).float().mean()
        for lam, own in zip(torch.distributions.Beta(4.0, 4.0).sample((200,)), map(generator, range(200)), strict=True)
    ]
    assert torch.stack(drawn).mean().item() == pytest.approx(0.358, abs=0.02)
    assert not draw_clipped_boxes(0.0, 3, (16, 16), generator(), "cpu").any()
    whole = draw_clipped_boxes(1.0, 64, (16, 16), generator(), "cpu")
    assert edges(whole).max() == 16


def test_mixing_images_labels_and_masks():
    box = boxes(3, (16, 16))
    for inside, outside in (
        (torch.randn(3, 2, 16, 16), torch.randn(3, 2, 16, 16)),
        (torch.randint(4, (3, 1, 16, 16)), torch.randint(4, (3, 1, 16, 16))),
        (torch.rand(3, 1, 16, 16) < 0.5, torch.rand(3, 1, 16, 16) < 0.5),
    ):
        mixed = mix(inside, outside, box)
        where = box.expand_as(inside)
        assert mixed.dtype == inside.dtype
        assert torch.equal(mixed[where], inside[where]) and torch.equal(mixed[~where], outside[~where])
    everywhere = torch.ones_like(box)
    assert torch.equal(mix(inside, outside, everywhere), inside)
    assert torch.equal(mix(inside, outside, ~everywhere), outside)


@pytest.mark.parametrize(
    "wrong", [{"fraction": (0.0, 0.4)}, {"fraction": (0.5, 0.4)}, {"probability": 1.5}, {"aspect": 0.5}]
)
def test_wrong_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match="fraction must lie"):
        boxes(2, (16, 16), **wrong)


def test_cutmix_pastes_the_next_patch_of_the_batch():
    mixing = CutMix(1.0, (0.3, 0.6), 2.0, generator())
    patches = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 16, 16)
    box = mixing.draw(patches)
    assert box.shape == (3, 1, 16, 16) and box.dtype == torch.bool
    mixed = mixing.paste(patches, box)
    for i, partner in enumerate((1, 2, 0)):
        assert (mixed[i][:, box[i, 0]] == partner).all() and (mixed[i][:, ~box[i, 0]] == i).all()
    assert not torch.equal(mixing.draw(patches), box)


def test_cutmix_without_a_partner_or_a_box_draws_nothing():
    patches, own = torch.zeros(3, 2, 16, 16), generator()
    state = own.get_state()
    assert CutMix(0.0, (0.3, 0.6), 2.0, own).draw(patches) is None
    assert CutMix(1.0, (0.3, 0.6), 2.0, own).draw(patches[:1]) is None
    assert torch.equal(own.get_state(), state)
    assert CutMix.paste(patches, None) is patches
