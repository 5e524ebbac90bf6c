from __future__ import annotations

import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from torch import Tensor

from nnunet_ssl.training.deep_supervision import deep_supervised, finest, resize_to

WEIGHTS = (0.5, 0.3, 0.0)


def outputs(batch: int = 2, size: tuple[int, ...] = (8, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = [tuple(s // f for s in size) for f in (1, 2, 4)]
    return [torch.randn(batch, 3, *s, generator=generator).requires_grad_() for s in sizes]


def label_map(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
    return torch.randint(0, 3, size, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("size", [(8, 12), (7, 10), (6, 10, 8)])
@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool])
def test_maps_are_downsampled_as_nnunets_targets(size, dtype):
    volume = label_map(2, 1, *size, dtype=dtype)
    factors = (1.0, 0.5, 0.25)
    coarse = [torch.empty(2, 5, *(round(s * f) for s in size)) for f in factors]
    found = resize_to(volume, coarse)
    expected = [DownsampleSegForDSTransform(factors)._apply_to_segmentation(sample) for sample in volume]
    for level, output in enumerate(found):
        assert output.dtype == dtype and output.shape == (2, 1, *coarse[level].shape[2:])
        assert torch.equal(output, torch.stack([sample[level] for sample in expected]))
    assert torch.equal(found[0], volume)


def test_sum_over_resolutions_with_weights():
    logits, target = outputs(), [label_map(2, 1, s, s) for s in (8, 4, 2)]
    valid = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    valid[:, :, :4] = False
    seen = []

    def loss(x: Tensor, y: Tensor, counted: Tensor | None, nothing: Tensor | None) -> Tensor:
        seen.append((y, counted, nothing))
        return (x * y).sum()

    total = deep_supervised(loss, WEIGHTS, logits, target, valid, None)
    expected = 0.5 * (logits[0] * target[0]).sum() + 0.3 * (logits[1] * target[1]).sum()
    torch.testing.assert_close(total, expected)
    assert [y is t for (y, _, _), t in zip(seen, target, strict=False)] == [True, True]  # weight 0 is not evaluated
    assert [tuple(counted.shape) for _, counted, _ in seen] == [(2, 1, 8, 8), (2, 1, 4, 4)]
    assert not seen[1][1][:, :, :2].any() and seen[1][1][:, :, 2:].all()
    assert all(nothing is None for _, _, nothing in seen)
    total.backward()
    assert logits[2].grad is None


def test_without_deep_supervision_it_is_the_loss_itself():
    logits, target = outputs()[0], [label_map(2, 1, s, s) for s in (8, 4, 2)]

    def loss(x: Tensor, y: Tensor, counted: Tensor | None) -> Tensor:
        assert y is target[0] and counted is None
        return x.sum()

    assert torch.equal(deep_supervised(loss, None, logits, target[0], None), logits.sum())
    assert torch.equal(deep_supervised(loss, None, logits, target, None), logits.sum())


def test_finest():
    first, second = torch.zeros(1), torch.ones(1)
    assert finest([first, second]) is finest((first,)) is finest(first) is first
