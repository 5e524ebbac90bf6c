from __future__ import annotations

import math

import pytest
import torch

from nnunet_ssl.losses.prototypes import class_means, prototype_contrast, sample_voxels


def line(*voxels: tuple[float, ...]) -> torch.Tensor:
    """Features (1, F, voxels, 1)."""
    return torch.tensor(voxels, dtype=torch.float64).T[None, ..., None].contiguous()


def classes(*labels: int) -> torch.Tensor:
    return torch.tensor(labels).view(1, -1, 1)


def contrast(features, reliable, uncertain, num_classes=2, sample_fraction=1.0, **options) -> torch.Tensor:
    return prototype_contrast(features, reliable, uncertain, num_classes, sample_fraction, **options)


# ---- values


@pytest.mark.parametrize(
    ("candidate", "distance"), [((0, 1), math.sqrt(2)), ((-1, 0), 2.0), ((5, 0), 0.0), ((1, 1), 0.765367)]
)
def test_distance_to_the_only_prototype(candidate, distance):
    features = line((2, 0), candidate)
    value = contrast(features, classes(0, -1), classes(-1, 0))
    assert value.item() == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize(("second", "expected"), [((0, 1), 0.585786), ((-1, 0), 0.0), ((4, 0), 2.0)])
def test_separation_of_two_prototypes(second, expected):
    features = line((1, 0), second, (3, 0), second)
    value = contrast(features, classes(0, 1, -1, -1), classes(-1, -1, 0, 1))
    assert value.item() == pytest.approx(expected, abs=1e-6)


def test_prototypes_are_means_of_features_as_they_are():
    features = line((3, 0), (0, 1), (0, 1))  # mean (3, 1) / 2: the longer vector counts more
    value = contrast(features, classes(0, 0, -1), classes(-1, -1, 0))
    angle = math.atan2(3, 1)
    assert value.item() == pytest.approx(2 * math.sin(angle / 2), abs=1e-6)


def test_each_class_counts_alike_whatever_its_number_of_voxels():
    features = line((1, 0), (0, 1), (0, 1), (0, 1), (0, 1), (0, 1))
    # of class 0, four candidates at sqrt(2); of class 1, none: its prototype alone; of class 2, nothing at all
    value = contrast(features, classes(0, 1, -1, -1, -1, -1), classes(-1, -1, 0, 0, 0, 0), 3)
    assert value.item() == pytest.approx(math.sqrt(2) + 2 - math.sqrt(2), abs=1e-6)
    # and with one candidate of class 1 at distance 0
    value = contrast(features, classes(0, 1, -1, -1, -1, -1), classes(-1, -1, 0, 0, 0, 1), 3)
    assert value.item() == pytest.approx(math.sqrt(2) / 2 + 2 - math.sqrt(2), abs=1e-6)


def test_three_classes_have_three_pairs():
    features = line((1, 0), (0, 1), (-1, 0))
    value = contrast(features, classes(0, 1, 2), classes(-1, -1, -1), 3)
    assert value.item() == pytest.approx((2 * (2 - math.sqrt(2)) + 0) / 3, abs=1e-6)


def random_case(*spatial: int, num_classes: int = 4, dtype=torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, *spatial, generator=generator, dtype=dtype)
    label = torch.randint(0, num_classes, (2, *spatial), generator=generator)
    reliable = torch.rand(2, *spatial, generator=generator) < 0.7
    return features, torch.where(reliable, label, -1), torch.where(reliable, -1, label)


@pytest.mark.parametrize("spatial", [(6, 7), (4, 5, 6)])
def test_against_a_plain_computation(spatial):
    features, reliable, uncertain = random_case(*spatial)
    voxels = features.movedim(1, -1)
    means = [voxels[reliable == k].mean(0) for k in range(4)]
    unit = [m / m.norm() for m in means]
    candidates = [voxels[uncertain == k] for k in range(4)]
    alignment = [
        ((c / c.norm(dim=1, keepdim=True)) - u).norm(dim=1).mean() for c, u in zip(candidates, unit, strict=True)
    ]
    separation = [2 - (unit[k] - unit[j]).norm() for k in range(4) for j in range(k)]
    expected = torch.stack(alignment).mean() + torch.stack(separation).mean()
    torch.testing.assert_close(contrast(features, reliable, uncertain, 4), expected)
    torch.testing.assert_close(contrast(7 * features, reliable, uncertain, 4), expected)


# ---- gradients


def test_no_gradient_flows_through_the_prototypes_of_the_alignment():
    features = line((1, 0.2), (1, 1), (0.3, 1)).requires_grad_()
    contrast(features, classes(0, -1, -1), classes(-1, 0, 0)).backward()  # one prototype: alignment alone
    gradient = features.grad[0, :, :, 0].T
    assert not gradient[0].any() and gradient[1:].abs().min() > 0


def test_separation_reaches_the_reliable_voxels_alone():
    features = line((1, 0.2), (0.1, 1), (1, 1), (5, 3)).requires_grad_()
    contrast(features, classes(0, 1, -1, -1), classes(-1, -1, -1, -1)).backward()
    gradient = features.grad[0, :, :, 0].T
    assert gradient[:2].abs().min() > 0 and not gradient[2:].any()
    # a step against it moves the two prototypes apart
    with torch.no_grad():
        moved = features - 0.01 * features.grad
    after = contrast(moved, classes(0, 1, -1, -1), classes(-1, -1, -1, -1))
    assert after < contrast(features, classes(0, 1, -1, -1), classes(-1, -1, -1, -1))


def test_zero_distances_and_zero_features_have_finite_gradients():
    features = line((1, 0), (2, 0), (1, 0), (0, 0), (0, 0)).requires_grad_()
    value = contrast(features, classes(0, 1, -1, -1, 0), classes(-1, -1, 0, 1, -1))
    value.backward()
    assert value.isfinite() and features.grad.isfinite().all()


@pytest.mark.parametrize(
    ("reliable", "uncertain"), [((-1, -1, -1), (-1, -1, -1)), ((0, -1, -1), (-1, 1, 1)), ((-1, -1, -1), (0, 1, 2))]
)
def test_zero_and_connected_where_nothing_is_defined(reliable, uncertain):
    features = line((1, 0), (0, 1), (1, 1)).requires_grad_()
    value = contrast(features, classes(*reliable), classes(*uncertain), 3)
    value.backward()
    assert value.item() == 0.0 and features.grad is not None and not features.grad.any()


def test_half_precision_is_evaluated_in_float32():
    features, reliable, uncertain = random_case(6, 7, dtype=torch.float32)
    value = contrast(features.half(), reliable, uncertain, 4)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, contrast(features.half().float(), reliable, uncertain, 4))


# ---- sampling


@pytest.mark.parametrize(
    ("voxels", "fraction", "most", "drawn"),
    [(1000, 0.01, 1024, 10), (1000, 0.5, 64, 64), (50, 0.01, 1024, 1), (0, 0.01, 1024, 0), (7, 1.0, 1024, 7)],
)
def test_number_of_drawn_voxels(voxels, fraction, most, drawn):
    labels = torch.full((1500,), -1)
    labels[torch.randperm(1500)[:voxels]] = 2
    indices, chosen = sample_voxels(labels, 4, fraction, most)
    assert chosen.sum(1).tolist() == [0, 0, drawn, 0]
    own = indices[2][chosen[2]]
    assert len(own.unique()) == drawn and (labels[own] == 2).all()


def test_voxels_are_drawn_uniformly_and_reproducibly():
    labels = torch.arange(40) % 2
    hits = torch.zeros(40)
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        indices, chosen = sample_voxels(labels, 2, 0.25, 100, generator)
        hits[indices[chosen]] += 1
    assert hits.sum() == 500 * 10
    assert (hits / 500 - 0.25).abs().max() < 0.08  # 4 standard errors
    first, second = (sample_voxels(labels, 2, 0.25, 100, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(first, second)


def test_drawn_voxels_enter_the_loss():
    features, reliable, uncertain = random_case(20, 20)
    options = {"sample_fraction": 0.1, "max_samples": 1024}
    first, second = (
        prototype_contrast(features, reliable, uncertain, 4, **options, generator=torch.Generator().manual_seed(s))
        for s in (0, 1)
    )
    everything = contrast(features, reliable, uncertain, 4)
    assert first != second and first.item() == pytest.approx(everything.item(), abs=0.3)


def test_class_means():
    features, reliable, _ = random_case(3, 4)
    means, present = class_means(features.flatten(2), reliable.flatten(1), 6)
    assert present.tolist() == [True] * 4 + [False] * 2 and not means[4:].any()
    torch.testing.assert_close(means[1], features.movedim(1, -1)[reliable == 1].mean(0))
