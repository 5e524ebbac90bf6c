from __future__ import annotations

import pytest
import torch

from nnunet_ssl.losses import mutual_consistency as module
from nnunet_ssl.losses.mutual_consistency import mutual_consistency, sharpen


def binary(*foreground: float) -> torch.Tensor:
    """Logits (1, 2, 1, n) with these foreground probabilities."""
    p = torch.tensor(foreground, dtype=torch.float64)
    return torch.stack((1 - p, p)).log().view(1, 2, 1, -1)


@pytest.mark.parametrize(
    ("temperature", "given", "expected"),
    [
        (0.1, 0.5, 0.5), (1.0, 0.37, 0.37), (0.5, 0.6, 0.69230769), (0.5, 0.9, 0.98780488),
        (0.1, 0.55, 0.88149947), (0.1, 0.6, 0.98295407), (0.1, 0.7, 0.99979100),
    ],
)  # fmt: skip
@pytest.mark.parametrize("per_channel", [False, True])
def test_sharpened_probabilities(temperature, given, expected, per_channel):
    p = torch.tensor([1 - given, given], dtype=torch.float64).view(1, 2, 1, 1)
    assert sharpen(p, temperature, per_channel)[0, 1].item() == pytest.approx(expected, abs=1e-8)
    assert sharpen(p[:, 1:], temperature).item() == pytest.approx(expected, abs=1e-8)


def test_three_classes_as_a_distribution_and_per_channel():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).view(1, 3, 1, 1)
    assert sharpen(p, 0.5).flatten().tolist() == pytest.approx([0.65789474, 0.23684211, 0.10526316], abs=1e-8)
    per_channel = sharpen(p, 0.5, per_channel=True).flatten()
    assert per_channel.tolist() == pytest.approx([0.5, 0.15517241, 0.05882353], abs=1e-8)


def test_sums_over_ordered_pairs():
    assert mutual_consistency([binary(0.6), binary(0.7)], 0.1).item() == pytest.approx(0.23989585, abs=1e-8)
    three = [binary(0.6), binary(0.7), binary(0.9)]
    assert mutual_consistency(three, 0.1).item() == pytest.approx(0.50673547, abs=1e-8)
    assert mutual_consistency(three[::-1], 0.1).item() == pytest.approx(0.50673547, abs=1e-8)
    region = [z[:, 1:] - z[:, :1] for z in three]
    assert mutual_consistency(region, 0.1, regions=True).item() == pytest.approx(0.50673547, abs=1e-8)


@pytest.mark.parametrize(("pair", "expected"), [((0, 1), 0.15983285), ((1, 0), 0.08006301)])
def test_one_ordered_pair_alone(monkeypatch, pair, expected):
    monkeypatch.setattr(module, "permutations", lambda *_: [pair])
    assert mutual_consistency([binary(0.6), binary(0.7)], 0.1).item() == pytest.approx(expected, abs=1e-8)


def test_equal_outputs_agree_at_temperature_one_and_one_hot_ones_at_any():
    z = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert mutual_consistency([z, z.clone()], 1.0).item() == pytest.approx(0.0, abs=1e-16)
    certain = torch.tensor([50.0, -50.0, -50.0]).view(1, 3, 1, 1)
    assert mutual_consistency([certain, certain.clone()], 0.1).item() == 0.0


@pytest.mark.parametrize("detach", [True, False])
def test_gradient_through_the_sharpened_side(detach):
    first, second = binary(0.6).requires_grad_(), binary(0.55).requires_grad_()
    only_first = torch.square(first.softmax(1) - sharpen(second.softmax(1).detach(), 0.1)).mean(1).mean()
    expected = torch.autograd.grad(only_first, first)[0]
    found = torch.autograd.grad(mutual_consistency([first, second], 0.1, detach=detach), first)[0]
    assert torch.allclose(found, expected) is detach


def test_masked_voxels_and_extreme_logits():
    first, second = torch.randn(2, 2, 3, 6, 6).unbind(0)
    mask = torch.rand(2, 1, 6, 6) < 0.5
    noise = torch.where(mask, 0.0, 7.0)
    same = mutual_consistency([first + noise * torch.randn(3).view(1, 3, 1, 1), second], 0.1, mask)
    torch.testing.assert_close(same, mutual_consistency([first, second], 0.1, mask))
    z = (first * 1e3).requires_grad_()
    loss = mutual_consistency([z, second], 0.1, detach=False)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, z)[0]).all()
    z = first.clone().requires_grad_()
    empty = mutual_consistency([z, second], 0.1, torch.zeros_like(mask))
    assert empty.item() == 0.0 and torch.autograd.grad(empty, z)[0].count_nonzero() == 0


def test_one_prediction_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        mutual_consistency([binary(0.5)], 0.1)
