"""Pseudo-labels: those that two networks share, filtered by entropy, and losses towards hard labels of kept voxels.

Source: Lu et al., "Semi-supervised medical image segmentation via dual networks", Eqs. 3 and 4; how the two networks
are united is that of the authors' code, extended to several classes. Dice and cross-entropy of kept voxels: UniMatch
(Yang et al., CVPR 2023), its code for medical images, and FixMatch (Sohn et al., NeurIPS 2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ssl.losses.class_sums import sum_by_class
from nnunet_ssl.losses.precision import at_least_float32

PSEUDO_LOSSES = ("ce+dice", "ce", "dice")  # of hard labels: cross-entropy, Dice of the kept voxels, or their sum
LARGEST_SORT = 2**20  # voxels from which a percentile is computed; larger maps are thinned out
VOXELS, CLASS = SCOPES = ("voxels", "class")
"""Of what a percentile is taken: of all voxels together, or of those predicted as each class."""


class Decision(NamedTuple):
    """What one network says about each voxel, without gradient."""

    label: Tensor
    """(B, *S) int64, the most probable class; with regions (B, R, *S), 1 inside."""
    reliable: Tensor
    """(B, *S) bool, entropy within the percentile, and not masked."""
    entropy: Tensor
    """(B, *S) in nats; with regions the mean over them."""


def entropy(logits: Tensor) -> Tensor:
    """-sum_c p_c log p_c of the softmax over classes (Eq. 3, in nats and without epsilon).

    Args:
        logits: (B, K, *S).

    Returns:
        (B, *S) in [0, ln K], float32 (float64 for float64 logits); receives a gradient where the logits have one.
    """
    log_probability = at_least_float32(logits).log_softmax(1)
    return -(log_probability.exp() * log_probability).sum(1)


@torch.no_grad()
def below_percentile(values: Tensor, percentile: float, mask: Tensor | None = None) -> Tensor:
    """Where the values are strictly below their percentile (linear interpolation), without synchronising.

    Args:
        values: (B, *S). All of them together have one percentile; of more than 2^20 every n-th one enters it.
        percentile: in [0, 100].
        mask: (B, 1, *S), true or 1 where a voxel counts: the others enter no percentile and are never below it.

    Returns:
        (B, *S) bool. Nothing is strictly below the percentile of a constant.
    """
    counted = values if mask is None else values.masked_fill(mask[:, 0] == 0, torch.nan)
    return counted < _thinned(counted).nanquantile(percentile / 100)  # false for NaN


@torch.no_grad()
def within_class_percentile(
    values: Tensor, label: Tensor, classes: int, percentile: float, mask: Tensor | None = None
) -> Tensor:
    """Where a value is at most the percentile of the values of its own class, without synchronising.

    One percentile of all voxels shuts out a class whose voxels are the uncertain ones, as foreground is wherever it
    fills less than 100 - ``percentile`` % of the image. Here each class keeps its surest voxels, at least one, since
    the percentile itself is within; so does a class without a voxel among those from which it is computed.

    Args:
        values: (B, *S).
        label: (B, *S) int64, 0 to ``classes`` - 1.
        classes: K.
        percentile, mask: as in :func:`below_percentile`.

    Returns:
        (B, *S) bool.
    """
    counted = label if mask is None else torch.where(mask[:, 0] != 0, label, classes)
    found, own = _thinned(values), _thinned(counted)
    shares = [torch.where(own == k, found, torch.nan).nanquantile(percentile / 100) for k in range(classes)]
    threshold = torch.stack(shares).nan_to_num(torch.inf)  # NaN: of no voxel
    return (values <= threshold[label]) & (counted < classes)


def _thinned(values: Tensor) -> Tensor:
    """Every n-th of all values, so that at most 2^20 remain; an odd n meets every phase of patterns that repeat.

    Transposed convolutions leave such patterns.
    """
    flat = values.flatten()
    return flat[:: -(-flat.numel() // LARGEST_SORT) | 1]


@torch.no_grad()
def decide(logits: Tensor, percentile: float = 80.0, mask: Tensor | None = None, scope: str = VOXELS) -> Decision:
    """The network's own label of each voxel, and whether its entropy is among the lowest ``percentile`` %.

    Args:
        logits: (B, K, *S).
        percentile: 80 in the paper.
        mask: (B, 1, *S), true or 1 where a voxel counts.
        scope: "voxels", of all together as in the paper, or "class", of those with the same label.
    """
    label, uncertainty = logits.max(1).indices, entropy(logits)
    return Decision(label, _reliable(uncertainty, label, logits.shape[1], percentile, mask, scope), uncertainty)


@torch.no_grad()
def decide_regions(
    logits: Tensor, percentile: float = 80.0, mask: Tensor | None = None, scope: str = VOXELS
) -> Decision:
    """As :func:`decide` for regions (B, R, *S): inside where the sigmoid exceeds 0.5; their entropies are averaged.

    The class of a voxel in the scope "class" is the last region in which it lies, or none.
    """
    z = at_least_float32(logits)
    # of the two classes (1 - sigmoid, sigmoid)
    uncertainty = (F.softplus(-z) * z.sigmoid() + F.softplus(z) * (-z).sigmoid()).mean(1)
    label, regions = (z > 0).long(), z.shape[1]
    number = torch.arange(1, regions + 1, device=z.device).view(1, -1, *[1] * (z.ndim - 2))
    last = (label * number).amax(1)
    return Decision(label, _reliable(uncertainty, last, regions + 1, percentile, mask, scope), uncertainty)


def _reliable(
    uncertainty: Tensor, label: Tensor, classes: int, percentile: float, mask: Tensor | None, scope: str
) -> Tensor:
    if scope == CLASS:
        return within_class_percentile(uncertainty, label, classes, percentile, mask)
    if scope != VOXELS:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    return below_percentile(uncertainty, percentile, mask)


@torch.no_grad()
def unite(a: Decision, b: Decision) -> tuple[Tensor, Tensor]:
    """One label per voxel from two networks, valid where at least one of them is reliable.

    Of unequal labels, that of the only reliable network counts; where both are reliable or neither is, foreground
    before background, then the label of the lower entropy. Of regions, too, the only reliable network decides;
    elsewhere a voxel is inside where either says so. The authors' code, of two classes, takes foreground from either.

    Returns:
        labels, as ``a.label``, and valid, (B, *S) bool.
    """
    valid = a.reliable | b.reliable
    if a.label.ndim > a.reliable.ndim:
        first, second = a.reliable.unsqueeze(1), b.reliable.unsqueeze(1)
        return torch.where(first == second, a.label | b.label, torch.where(first, a.label, b.label)), valid
    surer = torch.where(b.entropy < a.entropy, b.label, a.label)
    foreground = torch.where(a.label == 0, b.label, torch.where(b.label == 0, a.label, surer))
    only = torch.where(a.reliable, a.label, b.label)
    return torch.where(a.reliable == b.reliable, foreground, only), valid


def entropy_filtered_pseudo_label(
    logits_a: Tensor, logits_b: Tensor, percentile: float = 80.0, mask: Tensor | None = None, scope: str = VOXELS
) -> tuple[Tensor, Tensor]:
    """The pseudo-label that two networks share: :func:`decide` for each, then :func:`unite`. No gradient.

    Args:
        logits_a, logits_b: (B, K, *S) of the same voxels.
        percentile: of each network's own entropies, 80 in the paper.
        mask: (B, 1, *S), true or 1 where a voxel counts; ``None`` counts all.
        scope: of the percentile, see :func:`decide`.

    Returns:
        labels (B, *S) int64 in 0..K-1, and valid (B, *S) bool.
    """
    return unite(decide(logits_a, percentile, mask, scope), decide(logits_b, percentile, mask, scope))


def masked_cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Mean cross-entropy over the valid voxels (Eq. 4); zero, still connected, when nothing is valid.

    Args:
        logits: (B, K, *S); receives the gradient, exactly zero where not valid.
        labels: (B, *S), class indices; may hold anything where not valid.
        valid: (B, *S) bool.

    Returns:
        Scalar, float32 (float64 for float64 logits).
    """
    error = F.cross_entropy(at_least_float32(logits), torch.where(valid, labels, 0).long(), reduction="none")
    return (error * valid).sum() / valid.sum().clamp(min=1)


def pseudo_dice(logits: Tensor, label: Tensor, keep: Tensor, smooth: float = 1e-5) -> Tensor:
    """Mean over all K classes of one minus the Dice with squared denominators, of the kept voxels of the whole batch.

    Source: UniMatch's code for medical images. With p the softmax, o the one-hot label and sums over the kept voxels,

        1 - (2 sum p o + smooth) / (sum p^2 + sum o^2 + smooth).

    Args:
        logits: (B, K, *S); receives the gradient, exactly zero where not kept. For regions see :func:`as_two_classes`.
        label: (B, 1, *S), class indices; may hold anything where not kept.
        keep: (B, 1, *S), true or 1 where a voxel counts.
        smooth: keeps the Dice of a class without a voxel near 1, with almost no gradient.

    Returns:
        Scalar, float32 (float64 for float64 logits); nothing kept gives exactly 0, still connected.
    """
    probability = at_least_float32(logits).softmax(1)
    kept = keep.to(probability.dtype)
    target = torch.where(keep.bool(), label, 0).long()
    overlap = sum_by_class(probability.gather(1, target) * kept, target, logits.shape[1])
    predicted = (torch.square(probability) * kept).sum([0, *range(2, logits.ndim)])
    size = predicted + sum_by_class(kept, target, logits.shape[1])
    return (1.0 - (2.0 * overlap + smooth) / (size + smooth)).mean()  # 0 / 0 is smooth / smooth: no special case


def pseudo_cross_entropy(
    logits: Tensor, label: Tensor, keep: Tensor, valid: Tensor | None = None, class_weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy towards hard labels in which rejected voxels count as 0: few kept voxels pull little.

    Source: FixMatch's mean over all samples, here over all valid voxels. With class weights the weighted mean of the
    kept voxels, as torch has it.

    Args:
        logits: (B, K, *S); receives the gradient, exactly zero where not kept.
        label: (B, 1, *S), class indices; may hold anything where not kept.
        keep: (B, 1, *S), true or 1 where a voxel is learnt.
        valid: (B, 1, *S), true or 1 where a voxel is no padding, others are never kept; ``None`` counts all.
        class_weight: (K,), not negative; ``None`` weighs all classes alike.

    Returns:
        Scalar, float32 (float64 for float64 logits); 0, still connected, where no voxel or no weight is left.
    """
    kept = keep.bool() if valid is None else keep.bool() & valid.bool()
    target = torch.where(kept, label, 0)[:, 0].long()
    error = F.cross_entropy(at_least_float32(logits), target, reduction="none").unsqueeze(1)
    if class_weight is None:
        return (error * kept).sum() / (kept.numel() if valid is None else valid.sum().clamp(min=1))
    weight = class_weight.detach().to(error.dtype)[target].unsqueeze(1) * kept
    total = weight.sum()
    return (error * weight).sum() / torch.where(total > 0, total, 1.0)
