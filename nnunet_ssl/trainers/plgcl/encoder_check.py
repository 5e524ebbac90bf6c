"""Whether a network's encoder takes the patches that a method is going to embed, tried before the first step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_ssl.errors import complain
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid


def check_encoder(
    network: nn.Module, grid: PatchGrid, channels: int, features: Callable[[nn.Module, Tensor, int], Tensor]
) -> int:
    """Embed a dummy patch in both modes; the number of features of the embedded stage.

    nnU-Net's instance norm refuses a feature map of one voxel, and residual blocks a patch that the strides do not
    divide.

    Args:
        network: not wrapped; its encoder is copied, since a batch norm would count the dummy.
        grid: size of the patches and the stage that is embedded.
        channels: of the input.
        features: (encoder, images (N, C, *P), stage) -> (N, features).

    Raises:
        NotImplementedError: the network has no encoder of stages.
        SemiSupervisedError: the encoder cannot take such patches.
    """
    if not isinstance(getattr(getattr(network, "encoder", None), "stages", None), nn.Sequential):
        raise NotImplementedError(
            f"PLGCL does not support {type(network).__name__}: it embeds patches with the stages of a U-Net's encoder."
        )
    encoder = copy.deepcopy(cast(nn.Module, network.encoder))
    dummy = torch.zeros(1, channels, *grid.size, device=next(encoder.parameters()).device)
    try:
        with torch.no_grad():
            found = [features(encoder.train(training), dummy, grid.stage) for training in (True, False)]
    except (ValueError, RuntimeError) as error:
        raise complain(
            f"The encoder cannot embed patches of {list(grid.size)} voxels at stage {grid.stage}: {error}",
            remedy="Set the hyper-parameter patch_size to a larger multiple of the encoder's strides.",
        ) from error
    return found[0].shape[1]
