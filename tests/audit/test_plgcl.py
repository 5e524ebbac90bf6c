"""PLGCL: what a network sees of its strong view, and heads of the contrast that start apart or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.projection import ProjectionHead
from nnunet_ssl.data.strong_view import StrongView
from nnunet_ssl.trainers.plgcl.morphological_view import MorphologicalView, PublishedView
from nnunet_ssl.training.checkpoint import seed_everything
from tests.architectures.test_projection import COLLAPSE, contrast_of
from tests.data.test_strong_view import INVISIBLE, KINDS, change, images_with_labels, network

ALL_KINDS = {
    **KINDS,
    "anisotropic in 2d": ((1, 24, 64), None, ()),
    "anisotropic, background kept at zero": ((2, 6, 32, 32), (0,), (0,)),
}


# ---- the strong view


@cache
def trained(kind: str) -> Callable[[Tensor], Tensor]:
    """Probabilities of a briefly trained network, or in 3D of an untrained one."""
    shape, _, masked = ALL_KINDS[kind]
    return network(shape, 25 if kind == "2d" else 5 if len(shape) == 3 else 0, bool(masked))


def changes(view: StrongView, kind: str, number: int) -> Tensor:
    """Mean absolute change of the softmax by a view of each image, (number,)."""
    shape, _, masked = ALL_KINDS[kind]
    pictures, _ = images_with_labels(shape, number, bool(masked))
    net = trained(kind)
    seed_everything(5)
    return change(net, view, pictures)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_nearly_every_strong_view_changes_the_prediction(kind):
    """And none leaves it as it is."""
    shape, ignored, masked = ALL_KINDS[kind]
    number = 64 if len(shape) == 3 else 20
    found = changes(MorphologicalView(ignored, masked_channels=masked), kind, number)
    assert (found < INVISIBLE).double().mean() < 0.05, found.sort().values[:8]
    assert found.min() > 0.1 * INVISIBLE


def test_a_third_of_the_published_views_changes_nothing():
    """32 % were found; of networks as small as this one 34 to 41 %."""
    invisible = (changes(PublishedView(), "2d", 128) < INVISIBLE).double().mean()
    assert 0.28 < invisible < 0.48, invisible


def test_changes_of_brightness_are_invisible_and_those_of_morphology_are_not():
    """Found were, in this order, 4e-7, 6e-4, .004, .013 and .046; a network as small as this one changes less."""
    view, means = PublishedView(), []
    for i in range(5):
        view.drawn.probabilities = [float(i == k) for k in range(5)]
        means.append(changes(view, "2d", 48).mean().item())
    brightness, shift, contrast, gamma, morphology = means
    assert means == sorted(means), means
    assert brightness < 4e-7 < 100 * brightness < shift < 6e-4, means
    assert contrast < 0.004 and gamma < 0.013 and 0.2 * 0.046 < morphology < 0.046, means


# ---- the head


@pytest.mark.parametrize("seed", range(3))
def test_centring_before_a_layer_norm_helps_less_than_batch_norm(seed):
    """7.645 and 0.353 were found; here 7.72 to 7.78 and 0.24 to 0.29, by how the first layer's bias is drawn."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(320, 320), nn.LayerNorm(320), nn.LeakyReLU(0.01), nn.Linear(320, 128))
    head, valid = ProjectionHead(320), torch.ones(84, dtype=torch.bool)
    plain = contrast_of(lambda x: F.normalize(layers(x), dim=1), seed)
    centred = contrast_of(lambda x: F.normalize(layers(x - x.mean(0)), dim=1), seed)
    ours = contrast_of(lambda x: head(x, valid), seed)
    assert plain == pytest.approx((8.024, 0.0055), abs=0.002)
    assert centred[0] == pytest.approx(7.645, abs=0.15) and centred[1] == pytest.approx(0.353, abs=0.12)
    assert ours == pytest.approx((6.99, 1.06), abs=0.12)
    assert ours[0] < 0.98 * COLLAPSE < plain[0]
