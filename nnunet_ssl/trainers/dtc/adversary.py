"""The discriminator of SASSNet: it learns to tell maps of labelled from maps of unlabelled patches.

Source: Li et al., "Shape-aware Semi-supervised 3D Semantic Segmentation for Medical Images" (MICCAI 2020), its code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.training.distributed import masked_mean_over_ranks, number_of_ranks, sum_over_ranks

RATE, BETAS = 1e-4, (0.9, 0.99)  # of Adam, released code


class Adversary:
    """Trains a discriminator beside the networks, with an optimiser of its own; in float32.

    To the trainer it is frozen: the networks' terms do not reach it, and its gradients live in :meth:`learn` alone.

    Args:
        discriminator: (maps (B, F, *P), images (B, C, *P)) -> logits (B, 2).
    """

    def __init__(self, discriminator: nn.Module) -> None:
        self.discriminator = discriminator.requires_grad_(False)
        self.optimizer = torch.optim.Adam(discriminator.parameters(), lr=RATE, betas=BETAS)

    def deceived(self, maps: Tensor, images: Tensor, labeled: int) -> Tensor:
        """How far it is from taking the maps of unlabelled patches for labelled ones; with its gradient to them.

        Args:
            maps, images: of the labelled patches first; from these :meth:`learn` will learn.
            labeled: how many those are.

        Returns:
            this rank's part of the mean over patches, in which every rank must take part.
        """
        self._seen = maps.detach().nan_to_num(), images, labeled  # NaN: of a step that mixed precision skips
        self.discriminator.eval()
        taken_for_labeled = torch.ones(len(maps) - labeled, device=maps.device, dtype=torch.bool)
        return self._error(maps[labeled:], images[labeled:], taken_for_labeled)

    def learn(self) -> Tensor:
        """One step on what :meth:`deceived` was given; every rank must take it.

        Returns:
            the cross-entropy before the step; ln 2 where nothing can be told.
        """
        maps, images, labeled = self._seen
        network = self.discriminator.train().requires_grad_(True)
        error = self._error(maps, images, torch.arange(len(maps), device=maps.device) < labeled)
        parameters = list(network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(error, parameters), strict=True):
            parameter.grad = sum_over_ranks(gradient) / number_of_ranks()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(False)
        return error.detach()

    def _error(self, maps: Tensor, images: Tensor, labeled: Tensor) -> Tensor:
        errors = F.cross_entropy(self.discriminator(maps, images), labeled.long(), reduction="none")
        return masked_mean_over_ranks(errors, torch.ones_like(labeled))
