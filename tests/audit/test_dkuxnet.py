"""DKUXNet: what the contrast does to free logits, what the levels of the k-means layers cost, and equal computations.

The gradients of the one-channel norm and of the products are in tests/architectures/test_kmax.py and test_depthwise.py.
"""

from __future__ import annotations

import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.depthwise import expand, reduce
from nnunet_ssl.architectures.dkuxnet import DKUXNet, classify_voxels
from nnunet_ssl.architectures.kmax import BATCH_NORM, Temperature
from nnunet_ssl.losses.info_nce import mean_similarities, paired_info_nce, voxelwise_info_nce
from nnunet_ssl.losses.query_distribution import log_query_distribution
from nnunet_ssl.trainers.dkuxnet.paper import DKUXNetPaperHyperparameters
from nnunet_ssl.trainers.dkuxnet.settings import DKUXNetHyperparameters
from nnunet_ssl.trainers.dkuxnet.trainer import nnUNetTrainerDKUXNet
from tests.audit.counting import ANISOTROPIC, FOUR_STAGES, LEFT_ATRIUM, STANDARD_2D, STANDARD_3D, Plan, cost, unet_cost

SHARE = 0.126  # of the image that is foreground

# ---- free logits: two classes, all weak views and then all strong ones; their difference is what is free


def views(truth: Tensor, logit: float, noise: float) -> Tensor:
    """(2B, 1, *S): correct signs, and noise of its own in each view."""
    both = torch.cat([truth, truth])
    return (2 * both - 1) * logit + noise * torch.randn(both.shape, generator=torch.Generator().manual_seed(0))


def discs(size: int = 32) -> Tensor:
    """(2, 1, size, size), a disc in each of two images, apart from each other."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centres = ((15.9, 20.8), (8.6, 9.4))
    radius = size * math.sqrt(SHARE / math.pi)
    return torch.stack([((rows - y) ** 2 + (columns - x) ** 2 < radius**2).float() for y, x in centres])[:, None]


def parts(common: int, voxels: int = 1000, images: int = 4) -> Tensor:
    """(images, 1, voxels, 1): each has 12.6 % of foreground, of which ``common`` voxels are those of all."""
    own = round(SHARE * voxels) - common
    truth = torch.zeros(images, 1, voxels, 1)
    truth[:, :, :common] = 1
    for i, image in enumerate(truth):
        image[:, common + i * own : common + (i + 1) * own] = 1
    return truth


@pytest.mark.parametrize(
    ("similarities", "state", "ratio"),
    [
        ((0.84, 0.59), (8, 1.46, 0.93), 0.40),
        ((0.96, 0.24), (8, 2.81, 0.89), 0.008),
        ((0.999, 0.10), (8, 4.14, 0.56), 0.0015),
    ],
)
def test_the_pull_of_the_published_contrast_dies_out(similarities, state, ratio):
    """0.1 times its gradient over that of the cross-entropy of one view of two of four images.

    Which voxels had the cross-entropy is not known; with those of all images and views the ratios are twice as large.
    """
    truth = parts(state[0])
    free = views(truth, *state[1:]).requires_grad_()
    maps = free.sigmoid()
    assert [x.item() for x in mean_similarities(maps.flatten(1))] == pytest.approx(similarities, abs=0.005)
    contrast = DKUXNetHyperparameters().contrast_weight * contrast_of(maps, "sample", "foreground")
    supervised = F.binary_cross_entropy_with_logits(free[:2], truth[:2])
    pull, usual = (torch.autograd.grad(loss, free, retain_graph=True)[0].norm() for loss in (contrast, supervised))
    assert (pull / usual).item() == pytest.approx(ratio, rel=0.2)


def contrast_of(foreground: Tensor, contrast: str, channels: str) -> Tensor:
    """The trainer's contrast of foreground probabilities (2B, 1, *S)."""
    maps = foreground if channels == "foreground" else torch.cat([1 - foreground, foreground], 1)
    trainer: Any = SimpleNamespace(hyperparameters=DKUXNetHyperparameters(contrast=contrast))
    return nnUNetTrainerDKUXNet.contrast(trainer, maps, torch.ones_like(foreground, dtype=torch.bool))


def with_a_floor(foreground: Tensor) -> Tensor:
    """The voxelwise contrast of version 0.1.0: norms of at least 1, so that only foreground is similar to anything."""
    voxels = foreground.flatten(1).T[..., None]  # (V, 2B, 1)
    return torch.func.vmap(paired_info_nce)(voxels).mean()


@cache
def under_the_contrast_alone(start: tuple[float, float], contrast: str, channels: str) -> list[tuple[float, float]]:
    """(Dice, share of foreground) of hard decisions before and after some steps of Adam; "floor": the former norm."""
    truth = discs()
    free = views(truth, *start).requires_grad_()
    optimizer, found = torch.optim.Adam([free], 0.1), [quality(free, truth)]
    for _ in range(400 if contrast in ("sample", "none") else 150):
        maps = free.sigmoid()
        optimizer.zero_grad()
        (with_a_floor(maps) if contrast == "floor" else contrast_of(maps, contrast, channels)).backward()
        optimizer.step()
    return [*found, quality(free, truth)]


def quality(free: Tensor, truth: Tensor) -> tuple[float, float]:
    decided, both = (free > 0).float(), torch.cat([truth, truth])
    return (2 * (decided * both).sum() / (decided.sum() + both.sum())).item(), decided.mean().item()


GOOD, UNCERTAIN = (1.6, 0.8), (0.85, 0.8)


@pytest.mark.parametrize(
    ("start", "contrast", "channels", "dice"),
    [
        (GOOD, "sample", "foreground", (0.91, 0.77)),
        (GOOD, "none", "all", (0.91, 0.98)),
        (UNCERTAIN, "sample", "foreground", (0.61, 0.50)),
        (UNCERTAIN, "none", "all", (0.61, 0.78)),
    ],
)
def test_the_contrast_alone_spoils_predictions_and_without_negatives_mends_them(start, contrast, channels, dice):
    """Two images, each with a disc."""
    found = under_the_contrast_alone(start, contrast, channels)
    assert [d for d, _ in found] == pytest.approx(dice, abs=0.03)


def test_foreground_grows_under_the_contrast_and_most_with_all_channels():
    """From .226 to .331, and with all channels to 49 %; .126 is right. Without negatives it shrinks."""
    kinds = (("sample", "foreground"), ("sample", "all"), ("none", "all"))
    shares = [[share for _, share in under_the_contrast_alone(UNCERTAIN, *kind)] for kind in kinds]
    for found, after in zip(shares, (0.331, 0.49, 0.18), strict=True):
        assert found == pytest.approx([0.226, after], abs=0.01)


def test_the_default_has_no_negatives_and_the_published_settings_keep_them():
    default, paper = DKUXNetHyperparameters(), DKUXNetPaperHyperparameters()
    assert (default.contrast, default.contrast_channels) == ("none", "all")
    assert (paper.contrast, paper.contrast_channels) == ("sample", "foreground")


# ---- one vector per voxel


def test_with_a_floor_on_the_norm_voxels_learnt_that_half_of_the_image_is_foreground():
    """Dice .91 to .40, foreground .145 to .505, by the norm of version 0.1.0."""
    before, after = under_the_contrast_alone(GOOD, "floor", "foreground")
    assert before == pytest.approx((0.91, 0.145), abs=0.01)
    assert after == pytest.approx((0.40, 0.505), abs=0.015)


def test_negatives_at_the_same_voxel_do_so_with_the_cosine_of_all_channels_too():
    """Why the log warns of contrast=voxel."""
    _, after = under_the_contrast_alone(GOOD, "voxel", "all")
    assert after == pytest.approx((0.40, 0.5), abs=0.015)


def test_the_cosine_of_two_classes_without_background_teaches_nothing():
    """Why contrast=voxel with the foreground alone is refused."""
    maps = views(discs(), *UNCERTAIN).sigmoid().requires_grad_()
    loss = voxelwise_info_nce(maps)
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)
    assert torch.autograd.grad(loss, maps)[0].abs().max() < 1e-9
    both = torch.cat([1 - maps, maps], 1)
    assert torch.autograd.grad(voxelwise_info_nce(both), maps)[0].abs().max() > 1e-6


# ---- levels of the k-means layers


@cache
def ratios(plan: Plan, former: bool) -> tuple[float, float]:
    """(operations, memory) of a forward relative to the U-Net's.

    Args:
        former: on the two levels above the bottleneck, as in version 0.1.0.
    """
    levels = [len(plan.features) - 2, len(plan.features) - 3] if former else None
    own = cost(lambda: DKUXNet(1, num_classes=2, kmax_levels=levels, **plan.arguments), plan)
    unet = unet_cost(plan)
    return own[0] / unet[0], own[1] / unet[1]


def test_levels_by_stride_halve_the_cost_on_four_stages():
    """Forward operations of 2.32 and now 1.36 times the U-Net's, memory of 7.6 and now 4.1 times."""
    assert ratios(FOUR_STAGES, True) == (pytest.approx(2.32, abs=0.01), pytest.approx(7.6, abs=0.1))  # 7.53
    assert ratios(FOUR_STAGES, False) == (pytest.approx(1.36, abs=0.01), pytest.approx(4.1, abs=0.1))  # 4.03


@pytest.mark.parametrize(
    ("plan", "before", "now"),
    [
        (STANDARD_3D, 1.09, 1.12),
        (LEFT_ATRIUM, 1.08, 1.08),
        (ANISOTROPIC, 1.09, 1.15),
        (STANDARD_2D, 1.11, 1.25),
    ],
    ids=["128^3", "left atrium", "40 x 224 x 192", "512^2"],
)
def test_operations_on_real_plans(plan, before, now):
    """Per image and forward, relative to the U-Net: 1.08 to 1.11 on the former levels."""
    assert [ratios(plan, former)[0] for former in (True, False)] == pytest.approx([before, now], abs=0.01)


def test_memory_on_a_standard_plan():
    """2.70 times the U-Net's per image on the former levels, 2.93 on the published strides."""
    found = [ratios(STANDARD_3D, former)[1] for former in (True, False)]
    assert found == pytest.approx([2.70, 2.93], abs=0.08)  # 2.64 and 2.86 of what is saved


# ---- equal computations


@pytest.mark.parametrize("strength", [0.3, 2.0, 6.0])
def test_with_two_groups_and_two_classes_both_contrasts_see_one_signal(strength):
    """P_1 = sigma(c (2 Q_1 - 1)) to 1e-6, where queries of a group agree about the class and groups differ by c."""
    group_of_query = torch.tensor([0] * 5 + [1] * 3)
    responses = 3 * torch.randn(2, 8, 6, 7, generator=torch.Generator().manual_seed(0))
    of_second_class = strength * (group_of_query - 0.5)
    classes = torch.stack([-of_second_class, of_second_class], 1).expand(2, -1, -1)
    probability = classify_voxels(responses, classes).softmax(1)[:, 1]
    distribution = log_query_distribution(responses, group_of_query).exp()[:, 1]
    expected = torch.sigmoid(strength * (2 * distribution - 1))
    torch.testing.assert_close(probability, expected, atol=1e-6, rtol=0)
    assert distribution.std() > 0.2


def test_the_norm_of_a_whole_tensor_is_a_batch_norm_of_one_channel():
    """To 2e-6, of queries and voxels as a k-means layer has them."""
    responses = torch.randn(2, 32, 4096, generator=torch.Generator().manual_seed(0)) * 2 + 0.5
    theirs = nn.BatchNorm1d(1, **BATCH_NORM)(responses.view(1, 1, -1)).view_as(responses)
    torch.testing.assert_close(Temperature(1.0)(responses), theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("conv_op", "shape"), [(nn.Conv3d, (1, 48, 8, 10, 8)), (nn.Conv2d, (2, 32, 32, 24))])
def test_grouped_convolutions_of_single_voxels_are_products(conv_op, shape):
    """To 6e-7, both ways."""
    generator, channels = torch.Generator().manual_seed(0), shape[1]
    torch.manual_seed(0)
    widen = conv_op(channels, 4 * channels, 1, groups=channels)
    narrow = conv_op(4 * channels, channels, 1, groups=channels)
    x = torch.randn(shape, generator=generator)
    wide = torch.randn(shape[0], 4 * channels, *shape[2:], generator=generator)
    torch.testing.assert_close(expand(widen, x), widen(x), atol=6e-7, rtol=0)
    torch.testing.assert_close(reduce(narrow, wide), narrow(wide), atol=6e-7, rtol=0)
