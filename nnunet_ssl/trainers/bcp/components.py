"""The largest connected component of each class, on a GPU without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.training.targets import Targets

JUMPS = 3  # towards the root of a chain of pieces, in each round
WHOLE = 0.99  # share of a class's voxels in its largest piece from which it is one


@torch.no_grad()
def largest_components(masks: Tensor) -> Tensor:
    """The largest component of each map, neighbours by a corner included; an empty map stays empty.

    By scipy on a CPU, otherwise :func:`without_waiting`.

    Args:
        masks: (B, F, *S) bool, each sample and channel on its own; fewer than 2^24 voxels.

    Returns:
        (B, F, *S) bool.
    """
    if masks.device.type != "cpu":
        return without_waiting(masks)
    return torch.from_numpy(np.stack([_largest(mask) for mask in masks.flatten(0, 1).numpy()])).view_as(masks)


def _largest(mask: np.ndarray) -> np.ndarray:
    found, number = ndimage.label(mask, np.ones([3] * mask.ndim))
    return mask if number < 2 else found == 1 + np.bincount(found.flat)[1:].argmax()


@torch.no_grad()
def without_waiting(masks: Tensor) -> Tensor:
    """:func:`largest_components` for any device.

    Every piece begins as one voxel and joins the neighbour with the largest number, all at once, so that their number
    at least halves in a round (Shiloach & Vishkin, J. Algorithms 1982): as many rounds as the number of voxels has
    bits, whatever the picture, so that nobody has to ask the device whether it is done.
    """
    flat = masks.flatten(0, 1)
    size = flat[0].numel()
    number = torch.arange(size + 1, device=masks.device, dtype=torch.float32)  # 0: outside
    label = torch.where(flat, number[1:].view(1, *flat.shape[1:]), 0.0)
    pool = F.max_pool2d if flat.ndim == 3 else F.max_pool3d
    for _ in range(size.bit_length()):
        around = torch.where(flat, pool(label.unsqueeze(1), 3, 1, 1).squeeze(1), 0.0)
        parent = number.repeat(len(flat), 1)
        parent.scatter_reduce_(1, label.flatten(1).long(), around.flatten(1), "amax")
        for _ in range(JUMPS):
            parent = parent.gather(1, parent.long())
        label = parent.gather(1, label.flatten(1).long()).view_as(label)
    index = label.flatten(1).long()
    sizes = torch.zeros(len(flat), size + 1, device=masks.device).scatter_add(1, index, torch.ones_like(index).float())
    sizes[:, 0] = 0
    chosen = sizes.max(1, keepdim=True).indices
    return ((index == chosen) & (index > 0)).view_as(masks)


def classes_in_one_piece(
    segmentations: Iterable[np.ndarray], classes: Sequence[Sequence[int]], slices: bool
) -> list[bool]:
    """Whether nearly all of each class is one component, in every case that shows it.

    Args:
        segmentations: label maps (Z, Y, X) of the labelled cases.
        classes: the label values of each foreground class or region.
        slices: look at each slice, as 2D plans do.
    """
    whole = [True] * len(classes)
    for volume in segmentations:
        for k, values in enumerate(classes):
            mask = np.isin(volume, values)
            whole[k] = whole[k] and all(map(_is_one_piece, mask if slices else [mask]))
    return whole


def _is_one_piece(mask: Any) -> bool:
    found, number = ndimage.label(mask, np.ones([3] * mask.ndim))
    return number < 2 or bool(np.bincount(found.flat)[1:].max() >= WHOLE * mask.sum())


class LargestPieces:
    """Pseudo-labels of which some classes keep their largest component; the rest becomes background.

    Args:
        targets: classes or regions.
        everywhere: of every class; otherwise of none until :meth:`choose`.

    Attributes:
        chosen: for each foreground class or region, whether it is filtered.
    """

    def __init__(self, targets: Targets, everywhere: bool) -> None:
        self.targets = targets
        self.chosen = [everywhere] * len(targets.foreground)

    def choose(self, folder: str, cases: Sequence[str], slices: bool) -> list[str]:
        """Filter the classes that are one piece in the preprocessed labels of these cases; their names, for the log."""
        load = infer_dataset_class(folder)(folder, cases).load_case
        labels = (np.asarray(load(case)[1][0]) for case in cases)
        self.chosen = classes_in_one_piece(labels, self.targets.foreground, slices)
        named = zip(self.targets.foreground, self.chosen, strict=True)
        return ["+".join(map(str, values)) for values, one in named if one]

    def __call__(self, label: Tensor) -> Tensor:
        """Pseudo-labels (B, 1, *S), or regions (B, R, *S) bool."""
        if not any(self.chosen):
            return label
        if self.targets.has_regions:
            kept = largest_components(label)
            return torch.cat([(kept if one else label)[:, r : r + 1] for r, one in enumerate(self.chosen)], 1)
        masks = torch.cat([label == k for k, one in enumerate(self.chosen, 1) if one], 1)
        return torch.where((masks & ~largest_components(masks)).any(1, keepdim=True), 0, label)
