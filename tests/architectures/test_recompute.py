"""What is computed again in the backward pass, and what is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from nnunet_ssl.architectures.recompute import call, chain, maybe_recompute, residual, settle
from nnunet_ssl.architectures.uxnet import Levels, UXBlock, residual_block
from nnunet_ssl.planning.counted_step import CountedStep
from tests.saved_memory import saved_floats

LEVELS = Levels(2, [8, 16], nn.Conv2d, [[3, 3], [3, 3]], [[1, 1], [2, 2]])


def block(before: int, after: int) -> Any:
    torch.manual_seed(0)
    return residual_block(LEVELS, 0, before, after)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("before", "after"), [(8, 16), (16, 16)])
def test_no_convolution_of_a_residual_block_runs_twice(before, after, copied):
    module, features = block(before, after), torch.randn(2, before, 12, 12).requires_grad_()
    gradients, operations, kept = [], [], []
    for wanted in (False, True):

        def run(wanted: bool = wanted) -> torch.Tensor:
            found = residual(module, features, wanted, copied=copied)
            return torch.cat([found, found])

        with CountedStep("cpu") as counted:
            loss = run().square().sum()
            gradients.append(torch.autograd.grad(loss, [features, *module.parameters()]))
        operations.append(counted.forward + counted.backward)
        kept.append(saved_floats(module, run))
    assert operations[0] == operations[1] > 0
    assert kept[1] <= kept[0] - after * 2 * 144 * (1 + copied)
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other)


def test_of_the_image_only_the_last_convolution_is_kept():
    module, images = block(1, 16), torch.randn(2, 1, 12, 12)
    operations, kept = [], []
    for options in ({"wanted": False}, {"wanted": True}, {"wanted": True, "of_image": True}):
        with CountedStep("cpu") as counted:
            residual(module, images, copied=True, **options).sum().backward()
        operations.append(counted.backward)
        kept.append(saved_floats(module, lambda o=options: 1 * residual(module, images, copied=True, **o)))
    of_image = 2 * 2 * 144 * 16 * (9 + 1)  # what 3x3 and 1x1 convolutions of one channel cost: a sixteenth
    assert operations[0] == operations[1] == operations[2] - of_image
    assert kept[2] < kept[1] < kept[0]


def test_where_it_is_worth_it():
    plain, meta = torch.zeros(1), torch.zeros(1, device="meta")
    assert maybe_recompute(None, plain) is maybe_recompute(False, meta) is call
    assert maybe_recompute(None, meta) is not call and maybe_recompute(True, plain) is not call
    with torch.no_grad():
        assert maybe_recompute(True, plain) is call


def test_what_the_device_decides_can_be_settled():
    blocks = [UXBlock(4, [3, 3], nn.Conv2d, recompute) for recompute in (None, False, True)]
    settle(nn.Sequential(*blocks), wanted=True)
    assert [block.recompute for block in blocks] == [True, False, True]


def test_modules_in_a_chain():
    assert chain(nn.ReLU(), torch.neg)(torch.tensor([-1.0, 2.0])).tolist() == [0.0, -2.0]
