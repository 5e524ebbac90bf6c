from __future__ import annotations

import pytest
import torch
from nnunet_ssl.training.pseudo_labels import describe, hard_labels, mean_dice, true_dice


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
    result = describe(student, teacher, valid, has_regions=False)
    assert {k: pytest.approx(v.item()) for k, v in result.items()} == {
        "coverage": 1.0,
        "agreement": 2 / 3,
        "foreground": 2 / 3,
    }
    everything = describe(student, teacher, torch.ones_like(valid), has_regions=False)
    assert everything["coverage"].item() == pytest.approx(0.75)


def test_regions_decide_per_channel():
    teacher = torch.tensor([[50.0, 50.0, -50.0], [50.0, -50.0, 0.5]]).view(1, 2, 3, 1)
    result = describe(teacher, teacher, torch.ones(1, 1, 3, 1, dtype=torch.bool), has_regions=True)
    assert result["coverage"].item() == pytest.approx(2 / 3)
    assert result["agreement"].item() == 1.0
    assert result["foreground"].item() == 1.0


def test_true_dice_by_hand():
    teacher = one_hot_logits([1, 1, 0, 2])
    label = torch.tensor([1, 0, 1, 2], dtype=torch.int16).view(1, 1, 4, 1)
    known = torch.ones(1, 1, 4, 1, dtype=torch.bool)
    dice, classes = true_dice(teacher, label, known, [(1,), (2,)], False)
    assert dice.item() == pytest.approx((0.5 + 1.0) / 2) and classes.item() == 2
    dice, classes = true_dice(teacher, label, known & (label != 2), [(1,), (2,)], False)  # class 2 nowhere
    assert dice.item() == pytest.approx(0.5) and classes.item() == 1
    dice, classes = true_dice(teacher, label, torch.zeros_like(known), [(1,), (2,)], False)
    assert (dice.item(), classes.item()) == (0.0, 0)


def test_mean_dice_of_the_classes_that_either_shows():
    first, second = torch.zeros(2, 3, 4, dtype=torch.bool), torch.zeros(2, 3, 4, dtype=torch.bool)
    first[0, 0, :2] = second[0, 0, 1:3] = True  # Dice 2 / 4
    first[1, 1, 0] = True  # 0
    dice, number = mean_dice(first, second)
    assert dice.item() == 0.25 and number.item() == 2
    dice, number = mean_dice(first & False, second & False)
    assert dice.item() == 0 and number.item() == 0
