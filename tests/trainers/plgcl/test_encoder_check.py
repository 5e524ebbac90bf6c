"""What is tried before the first step, so that no patch fails in the middle of a training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ssl.architectures.projection import pooled_features
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.trainers.plgcl.encoder_check import check_encoder
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid
from tests.trainers.plgcl.test_patch_grid import halving, unet

GRID = PatchGrid(4, (32, 32, 32), ((0,), (0,), (0,)))


class FailsIn(nn.Module):
    def __init__(self, training: bool) -> None:
        super().__init__()
        self.fails_in, self.weight = training, nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training == self.fails_in:
            raise ValueError("Expected more than 1 spatial element")
        return x


@pytest.mark.parametrize("residual", [False, True])
def test_number_of_features_of_a_fitting_encoder(residual):
    network = unet(residual, halving(6, 3)).eval()
    assert check_encoder(network, GRID, 1, pooled_features) == 2
    assert not network.encoder.training


@pytest.mark.parametrize("training", [True, False])
def test_both_modes_are_tried(training):
    network = nn.Module()
    network.encoder = nn.Module()
    network.encoder.stages = nn.Sequential(FailsIn(training))
    with pytest.raises(SemiSupervisedError, match=r"patches of \[8, 8\] voxels at stage 0: .*\n.*patch_size"):
        check_encoder(network, PatchGrid(0, (8, 8), ((0,), (0,))), 1, pooled_features)


def test_a_batch_norm_does_not_count_the_dummy():
    network = nn.Module()
    network.encoder = nn.Module()
    network.encoder.stages = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    assert check_encoder(network, PatchGrid(1, (8, 8), ((0,), (0,))), 2, pooled_features) == 3
    assert network.encoder.stages[1].num_batches_tracked == 0


def test_a_network_without_stages_is_refused():
    with pytest.raises(NotImplementedError, match="does not support Linear: .*U-Net's encoder"):
        check_encoder(nn.Linear(1, 1), GRID, 1, pooled_features)
