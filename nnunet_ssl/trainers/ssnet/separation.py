"""The class separation of one step of SS-Net: which voxels take part, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_ssl.architectures.separation_heads import SeparationHeads
from nnunet_ssl.losses.class_separation import class_separation, sample_features
from nnunet_ssl.trainers.ssnet.memory import FeatureMemory
from nnunet_ssl.trainers.ssnet.settings import SSNetHyperparameters
from nnunet_ssl.training.network import unwrap


def separation(
    heads: nn.Module,
    memory: FeatureMemory,
    streams: Sequence[tuple[Tensor, Tensor]],
    decided: Tensor,
    settings: SSNetHyperparameters,
) -> Tensor:
    """L_cl of the labelled patches plus that of the unlabelled ones, behind an update of the memory.

    Every rank must call it.

    Args:
        heads: :class:`SeparationHeads` or a wrapper around them; called once.
        memory: gets the projections of labelled voxels that the network decides rightly.
        streams: of labelled, then of unlabelled patches: features (B, C, *P) and masks (B, F, *P) of the classes.
        decided: (B_L, F, *P) bool, what the network decides on the labelled patches.
        settings: how many voxels, and which are remembered.
    """
    classes = decided.shape[1]
    most = max(settings.separation_voxels // classes, 2)
    (own, voxels, shown), (other, _, seen) = (sample_features(x, masks, most) for x, masks in streams)
    right = shown & decided.transpose(0, 1).flatten(1).gather(1, voxels)
    plain = cast(SeparationHeads, unwrap(heads))
    with torch.no_grad():
        projected = plain.projection(own.float())
        scores = plain.scores_of_memory(projected)
    memory.replace(projected, scores if settings.remember == "highest" else -scores, right)

    predicted, scores, of_memory = heads(torch.cat([own, other], 1).float(), memory.vectors)
    parts = [x.split([own.shape[1], other.shape[1]], 1) for x in (predicted, scores)]
    found = [
        class_separation(x, memory.vectors, (counted, memory.filled), (score, of_memory), classes + 1)
        for x, score, counted in zip(*parts, (shown, seen), strict=True)  # background is a class without memory
    ]
    return torch.stack(found).sum()
