from __future__ import annotations

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ssl.training.targets import Targets, hard_labels, mean_dice

CLASSES = Targets(LabelManager({"background": 0, "ball": 1, "box": 2}, None))
IGNORE = Targets(LabelManager({"background": 0, "ball": 1, "box": 2, "ignore": 3}, None))
REGIONS = Targets(LabelManager({"background": 0, "whole": (1, 2), "box": 2, "ignore": 3}, (1, 2)))


def one_hot_logits(labels: list[int], classes: int = 3, scale: float = 50.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).T[None, :, :, None] * scale  # (1, K, N, 1)


def test_hard_labels_are_the_most_probable_classes():
    assert hard_labels(one_hot_logits([0, 2, 1])).flatten().tolist() == [0, 2, 1]
    logits = torch.randn(2, 5, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = hard_labels(logits)
    assert torch.equal(labels, logits.argmax(1, keepdim=True)) and not labels.requires_grad


def test_coverage_agreement_and_foreground_over_valid_voxels():
    teacher = one_hot_logits([0, 1, 2, 0])
    teacher[0, :, 3] = 0.0  # undecided: class 0 with confidence 1/3
    student = one_hot_logits([0, 1, 1, 1])
    valid = torch.tensor([1, 1, 1, 0], dtype=torch.bool).view(1, 1, 4, 1)
    result = CLASSES.describe(student, teacher, valid)
    assert {k: pytest.approx(v.item()) for k, v in result.items()} == {
        "coverage": 1.0,
        "agreement": 2 / 3,
        "foreground": 2 / 3,
    }
    pasted = torch.tensor([0, 0, 1, 1], dtype=torch.bool).view(1, 1, 4, 1)  # where the student saw another patch
    assert CLASSES.describe(student, teacher, valid, pasted) == result | {"agreement": torch.tensor(1.0)}
    everything = CLASSES.describe(student, teacher, torch.ones_like(valid))
    assert everything["coverage"].item() == pytest.approx(0.75)


def test_regions_decide_per_channel():
    teacher = torch.tensor([[50.0, 50.0, -50.0], [50.0, -50.0, 0.5]]).view(1, 2, 3, 1)
    result = REGIONS.describe(teacher, teacher, torch.ones(1, 1, 3, 1, dtype=torch.bool))
    assert result["coverage"].item() == pytest.approx(2 / 3)
    assert result["agreement"].item() == 1.0
    assert result["foreground"].item() == 1.0


def test_true_dice_by_hand():
    teacher = one_hot_logits([1, 1, 0, 2])
    label = torch.tensor([1, 0, 1, 2], dtype=torch.int16).view(1, 1, 4, 1)
    known = torch.ones(1, 1, 4, 1, dtype=torch.bool)
    dice, classes = CLASSES.true_dice(teacher, label, known)
    assert dice.item() == pytest.approx((0.5 + 1.0) / 2) and classes.item() == 2
    dice, classes = CLASSES.true_dice(teacher, label, known & (label != 2))  # class 2 nowhere
    assert dice.item() == pytest.approx(0.5) and classes.item() == 1
    dice, classes = CLASSES.true_dice(teacher, label, torch.zeros_like(known))
    assert (dice.item(), classes.item()) == (0.0, 0)


def test_mean_dice_of_the_classes_that_either_shows():
    first, second = torch.zeros(2, 3, 4, dtype=torch.bool), torch.zeros(2, 3, 4, dtype=torch.bool)
    first[0, 0, :2] = second[0, 0, 1:3] = True  # Dice 2 / 4
    first[1, 1, 0] = True  # 0
    dice, number = mean_dice(first, second)
    assert dice.item() == 0.25 and number.item() == 2
    dice, number = mean_dice(first & False, second & False)
    assert dice.item() == 0 and number.item() == 0


def test_what_a_target_says_with_an_ignore_label():
    label = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 4)
    regions = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]).view(1, 3, 4)
    assert CLASSES.annotated(label) is None and CLASSES.counted(label).all()
    for targets, target in ((IGNORE, label), (REGIONS, regions)):
        assert targets.annotated(target).flatten().tolist() == [True, True, True, False]
        assert targets.in_foreground(target).flatten().tolist() == [False, True, True, False]
        (kept,) = targets.annotated([target])
        assert torch.equal(kept, targets.counted(target))
    assert torch.equal(REGIONS.labels([regions])[0], regions[:, :2]) and IGNORE.labels(label) is label
    assert (CLASSES.foreground, REGIONS.foreground, REGIONS.channels) == ([(1,), (2,)], [(1, 2), (2,)], 2)
    assert REGIONS.masks_of(label)[0].tolist() == [[False, True, True, False], [False, False, True, False]]


def test_decisions_of_classes_and_regions():
    logits = one_hot_logits([0, 2, 1])
    assert CLASSES.decide(logits).flatten().tolist() == [0, 2, 1]
    assert CLASSES.decided_masks(logits)[0, :, :, 0].tolist() == [[False, False, True], [False, True, False]]
    assert CLASSES.foreground_probability(logits).flatten().tolist() == pytest.approx([0, 1, 1])
    regions = torch.tensor([[2.0, -1.0], [-3.0, 0.0]]).view(1, 2, 2)
    assert REGIONS.decide(regions)[0].tolist() == [[True, False], [False, False]]
    assert torch.equal(REGIONS.decided_masks(regions), REGIONS.decide(regions))
    assert REGIONS.confidence(regions).flatten().tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item(), 0.5])


def test_regions_as_problems_of_two_classes():
    regions, label = torch.randn(2, 2, 4), torch.randint(0, 2, (2, 2, 4))
    assert torch.equal(CLASSES.as_classes(regions), regions) and torch.equal(CLASSES.as_maps(regions), regions)
    pairs = REGIONS.as_classes(regions)
    torch.testing.assert_close(pairs.softmax(1)[:, 1], regions.flatten(0, 1).sigmoid())
    assert torch.equal(REGIONS.as_labels(label)[:, 0], label.flatten(0, 1))
    assert torch.equal(REGIONS.as_maps(label[:, :1])[2], label[1, :1])


# ---- pseudo-labels as supervision


def test_a_pseudo_label_has_the_probability_of_its_decision():
    z = torch.tensor([[0.2, 0.6], [0.7, 0.1], [0.1, 0.3]], dtype=torch.float64).log().view(1, 3, 1, 2)
    label, confidence = CLASSES.pseudo_label(z.requires_grad_())
    assert label.tolist() == [[[[1, 0]]]] and not confidence.requires_grad
    assert confidence.flatten().tolist() == pytest.approx([0.7, 0.6])
    z = torch.tensor([[2.0, -1.0], [0.5, 3.0]]).view(1, 2, 1, 2)
    label, confidence = REGIONS.pseudo_label(z)
    assert label[0, :, 0].tolist() == [[True, False], [True, True]]
    assert confidence.flatten().tolist() == pytest.approx(torch.tensor([2.0, 1.0, 0.5, 3.0]).sigmoid().tolist())
    assert not CLASSES.pseudo_label(torch.zeros(1, 3, 1, 2))[1].ge(0.95).any()  # uniform: nothing is confident


def test_supervision_by_pseudo_labels_is_cross_entropy_dice_or_their_sum():
    z = torch.tensor([[0.2, 0.6], [0.8, 0.4]], dtype=torch.float64).log().view(1, 2, 1, 2).requires_grad_()
    two = Targets(LabelManager({"background": 0, "ball": 1}, None))
    label, keep = torch.tensor([1, 0]).view(1, 1, 1, 2), torch.tensor([True, False]).view(1, 1, 1, 2)
    valid = torch.ones_like(keep)
    expected = {"ce": 0.11157178, "dice": 0.51207008, "ce+dice": 0.62364186}
    for loss, value in expected.items():
        assert two.pseudo_supervision(loss, z, label, keep, valid).item() == pytest.approx(value, abs=1e-8)
    nothing = two.pseudo_supervision("ce+dice", z, label, keep & False, valid)
    assert nothing.item() == 0.0 and not torch.autograd.grad(nothing, z)[0].any()


def test_regions_are_supervised_each_on_its_own():
    torch.manual_seed(0)
    z, label = torch.randn(2, 2, 3, 4, requires_grad=True), torch.rand(2, 2, 3, 4) < 0.5
    keep, valid = torch.rand(2, 2, 3, 4) < 0.7, torch.ones(2, 1, 3, 4, dtype=torch.bool)
    loss = REGIONS.pseudo_supervision("ce+dice", z, label, keep, valid)
    two = Targets(LabelManager({"background": 0, "ball": 1}, None))
    each = [
        two.pseudo_supervision(
            "ce+dice", torch.cat([torch.zeros_like(z[:, r : r + 1]), z[:, r : r + 1]], 1),
            label[:, r : r + 1].long(), keep[:, r : r + 1], valid,
        )
        for r in (0, 1)
    ]  # fmt: skip
    assert loss.item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.equal(gradient != 0, keep)
