"""PLGCL's loss: values of its specification, the three forms of the formula, gradients, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from nnunet_ssl.losses.gaussian_contrast import (
    binary_entropy,
    gaussian_info_nce,
    gaussian_statistics,
    has_contrast,
    mean_cosine,
)

TAU, LAMBDA = 0.2, 4.0
F64 = torch.float64


def rows(*values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def loss_of(u, means, covariances=None, classes=None, **options) -> torch.Tensor:
    """Of one query of class 0 in double precision; by default without covariance."""
    u, means = torch.as_tensor(u, dtype=F64), torch.as_tensor(means, dtype=F64)
    if covariances is None:
        covariances = torch.zeros(*means.shape, means.shape[1], dtype=F64)
    queries = u if u.ndim == 2 else u[None]
    classes = torch.zeros(len(queries), dtype=torch.int64) if classes is None else classes
    usable = torch.ones(len(means), dtype=torch.bool)
    return gaussian_info_nce(queries, classes, means, covariances, usable, **options)


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64), dim=-1)


# ---- values of the specification

E4 = torch.eye(4, dtype=F64)


@pytest.mark.parametrize(
    "means, zeta, expected",
    [
        pytest.param(E4[[0, 1]], 1, 0.006715348, id="1a"),
        pytest.param(E4[[0, 0]], 1, 0.693147181, id="1b"),
        pytest.param(torch.stack([E4[0], -E4[0]]), 1, 4.539890e-5, id="1c"),
        pytest.param(E4[[0, 1]], 4096, 3.353358846, id="1d"),
        pytest.param(E4[[0, 1]], 2048, 2.694580927, id="1e"),
        pytest.param(E4, 1, 0.020012253, id="1f"),
        pytest.param(E4, 1024, 3.077264941, id="1f, many negatives"),
        pytest.param(E4[[0, 0, 0, 0]], 1, 1.386294361, id="1g"),
        pytest.param(E4[[0, 0, 0, 0]], 1024, 8.030409562, id="1g, many negatives"),
    ],
)
def test_without_covariance_it_is_info_nce(means, zeta, expected):
    assert loss_of(E4[0], means, negatives=zeta).item() == pytest.approx(expected, abs=1e-9)
    as_tensor = loss_of(E4[0], means, negatives=torch.tensor(float(zeta)))
    assert as_tensor.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("negative_spread, expected", [(0.02, 0.511047745), (0.0, 0.504078443)])
def test_isotropic_covariance(negative_spread, expected):
    covariances = torch.stack([0.01 * E4, negative_spread * E4])
    assert loss_of(E4[0], E4[:2], covariances).item() == pytest.approx(expected, abs=1e-9)


THREE = (
    torch.tensor([1.0, 0, 0], dtype=F64),
    rows((0.8, 0.1, 0), (0.2, 0.5, 0.1), (-0.3, 0.2, 0.4)),
    torch.stack([torch.diag(d) for d in rows((0.02, 0.01, 0.01), (0.05, 0.02, 0.02), (0.01, 0.03, 0.03))]),
)


@pytest.mark.parametrize("zeta, expected", [(1, 1.203438), (100, 4.159588), (4096 / 3, 6.733443)])
def test_three_classes(zeta, expected):
    assert loss_of(*THREE, negatives=zeta).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "zeta, expected", [(1, (1.986854, 0.365124, 0.095073)), (4096 / 3, (1.928816, 1.977101, 0.514809))]
)
def test_gradient_of_three_classes(zeta, expected):
    u, means, covariances = THREE
    u = u.clone().requires_grad_()
    loss_of(u, means, covariances, negatives=zeta).sum().backward()
    torch.testing.assert_close(u.grad, torch.tensor(expected, dtype=F64), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "tau, number, sampled, one, zero, four",
    [
        (0.5, 1, 0.2610, 0.400258, 0.205092, 0.986837),
        (0.5, 3, 0.6259, 0.707991, 0.520526, 1.272158),
        (0.2, 3, 0.3141, 1.317819, 0.071549, 5.070301),
    ],
)
def test_bounds_the_expectation_over_gaussian_keys(tau, number, sampled, one, zero, four):
    u = torch.tensor([0.6, 0.8, 0, 0], dtype=F64)
    means = rows((0.5, 0.5, 0, 0), (-0.2, 0.1, 0.3, 0))
    covariances = torch.stack([torch.diag(d) for d in rows((0.04, 0.09, 0.01, 0), (0.16, 0.04, 0.02, 0.01))])
    covariances[0, 0, 1] = covariances[0, 1, 0] = 0.03
    spread = torch.einsum("d,kde,e->k", u, covariances, u)
    torch.testing.assert_close(means @ u, torch.tensor([0.7, -0.04], dtype=F64))
    torch.testing.assert_close(spread, torch.tensor([0.1008, 0.0832], dtype=F64))

    # the loss sees the keys through their dot product with u alone, which is Gaussian with this mean and variance
    generator, draws = torch.Generator().manual_seed(0), 400_000
    positive, *negative = (
        ((means[k] @ u) + spread[k].sqrt() * torch.randn(draws, generator=generator, dtype=F64)) / tau
        for k in (0, *[1] * number)
    )
    drawn = torch.stack([positive, *negative]).logsumexp(0) - positive
    error = (drawn.std() / draws**0.5).item()
    assert drawn.mean().item() == pytest.approx(sampled, abs=5 * error + 5e-5)
    for weight, expected in ((1.0, one), (0.0, zero), (4.0, four)):
        options = {"temperature": tau, "covariance_weight": weight, "negatives": number}
        bound = loss_of(u, means, covariances, **options).item()
        assert bound == pytest.approx(expected, abs=1e-6)
        assert (drawn.mean().item() - 4 * error <= bound) == (weight >= 1)


def test_keys_of_unit_length_are_not_bounded():
    """A key that is u once in a hundred: the Gaussian of its mean and variance has a smaller exponential mean."""
    values = torch.zeros(100, dtype=F64)
    values[0] = 1.0
    mean, variance = values.mean().item(), values.var(unbiased=False).item()
    assert (values * 5).exp().mean().item() == pytest.approx(2.4741, abs=1e-4)
    for weight, expected in ((1, 1.1898), (4, 1.7246)):
        assert math.exp(5 * mean + weight * 25 / 2 * variance) == pytest.approx(expected, abs=1e-4)


# ---- forms, bounds, gradients


def random_case(queries: int = 12, classes: int = 4, dimensions: int = 6, keys: int = 40):
    f = unit(queries, dimensions)
    memory = unit(classes, keys, dimensions, seed=1) + 0.3 * unit(classes, 1, dimensions, seed=2)
    memory = F.normalize(memory, dim=-1)
    means, covariances = gaussian_statistics(memory, torch.ones(classes, keys, dtype=torch.bool))
    y = torch.arange(queries) % classes
    return f, y, means, covariances, memory


def parts(f, y, means, covariances, zeta):
    """s, q, a with log zeta on the negatives, index of the own class."""
    s = f @ means.T / TAU
    q = torch.einsum("qd,kde,qe->qk", f, covariances, f)
    a = s + LAMBDA / (2 * TAU**2) * q
    own = F.one_hot(y, len(means)).bool()
    return s, q, torch.where(own, a, a + math.log(zeta)), own


@pytest.mark.parametrize("zeta", [1.0, 4096 / 3])
def test_the_three_forms_agree(zeta):
    f, y, means, covariances, _ = random_case()
    loss = loss_of(f, means, covariances, y, negatives=zeta)
    s, q, logits, own = parts(f, y, means, covariances, zeta)
    penalty = LAMBDA / (2 * TAU**2) * q[own]
    printed = logits.exp().sum(1).log() - s[own]
    entropy = F.cross_entropy(logits, y, reduction="none") + penalty
    rest = logits.masked_fill(own, -math.inf).logsumexp(1)
    for other in (printed, entropy, penalty + F.softplus(rest - logits[own], threshold=1000)):
        torch.testing.assert_close(loss, other, atol=1e-12, rtol=1e-12)
    assert (loss >= penalty).all()


@pytest.mark.parametrize("zeta", [1.0, 4096 / 3])
def test_gradient_is_the_closed_one_and_statistics_have_none(zeta):
    f, y, means, covariances, _ = random_case()
    f, means, covariances = (x.clone().requires_grad_() for x in (f, means, covariances))
    loss_of(f, means, covariances, y, negatives=zeta).sum().backward()
    with torch.no_grad():
        _, _, logits, _ = parts(f, y, means, covariances, zeta)
        pull = means / TAU + LAMBDA / TAU**2 * torch.einsum("kde,qe->qkd", covariances, f)
        expected = (logits.softmax(1)[..., None] * pull).sum(1) - means[y] / TAU
    assert (f.grad - expected).abs().max() < 1e-12
    assert means.grad is None and covariances.grad is None
    fixed = (y, means, covariances, torch.ones(4, dtype=torch.bool), TAU, LAMBDA, zeta)
    assert torch.autograd.gradcheck(lambda x: gaussian_info_nce(x, *fixed), f)


def test_logits_of_unit_keys_are_bounded():
    m = 0.05
    assert m / TAU + LAMBDA / (2 * TAU**2) * (1 - m**2) == pytest.approx(50.125)
    f, y, means, covariances, _ = random_case(queries=400)
    spiky = torch.zeros(2, 1000, 6, dtype=F64)  # the worst case: a share of +u, the others -u
    spiky[..., 0] = -1.0
    spiky[:, :525, 0] = 1.0
    worst = gaussian_statistics(spiky, torch.ones(2, 1000, dtype=torch.bool))
    for statistics in ((means, covariances), worst):
        a = parts(f, y % len(statistics[0]), *statistics, zeta=1.0)[2]
        assert a.max() <= 50.125 + 1e-9
    e1 = torch.zeros(1, 6, dtype=F64)
    e1[:, 0] = 1.0
    assert parts(e1, y[:1], *worst, zeta=1.0)[2].max().item() == pytest.approx(50.125, abs=1e-9)


def test_half_precision_does_not_overflow():
    keys = torch.tensor([1.0, -1.0]).repeat(2, 8)[..., None]
    statistics = gaussian_statistics(keys, torch.ones(2, 16, dtype=torch.bool))
    usable, y = torch.ones(2, dtype=torch.bool), torch.tensor([0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = gaussian_info_nce(torch.ones(1, 1, dtype=torch.float16), y, *statistics, usable, negatives=1024)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(50 + math.log(1 + 1024), rel=1e-6)


# ---- invariances


def test_a_rotation_of_everything_changes_nothing_with_full_covariance_alone():
    f, y, _, _, memory = random_case()
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(3)))[0]
    valid = torch.ones(memory.shape[:2], dtype=torch.bool)

    def difference(covariance: str) -> float:
        before = loss_of(f, *gaussian_statistics(memory, valid, covariance), y)
        after = loss_of(f @ rotation, *gaussian_statistics(memory @ rotation, valid, covariance), y)
        return (before - after).abs().max().item()

    assert difference("full") < 1e-12 and difference("none") < 1e-12
    assert difference("diag") > 1e-2


def test_order_and_duplicates_of_keys_negatives_and_queries_do_not_matter():
    f, y, means, covariances, memory = random_case()
    before = loss_of(f, means, covariances, y, negatives=7.0)
    valid = torch.ones(memory.shape[:2], dtype=torch.bool)
    for keys in (memory.flip(1), memory.repeat(1, 2, 1)):
        statistics = gaussian_statistics(keys, valid.repeat(1, keys.shape[1] // memory.shape[1]))
        torch.testing.assert_close(loss_of(f, *statistics, y, negatives=7.0), before, atol=1e-12, rtol=0)
    order = torch.tensor([2, 0, 3, 1])
    renamed = loss_of(f, means[order], covariances[order], order.argsort()[y], negatives=7.0)
    torch.testing.assert_close(renamed, before, atol=1e-12, rtol=0)
    shuffle = torch.randperm(len(f), generator=torch.Generator().manual_seed(0))
    shuffled = loss_of(f[shuffle], means, covariances, y[shuffle], negatives=7.0)
    torch.testing.assert_close(shuffled, before[shuffle], atol=1e-12, rtol=0)


# ---- what does not enter


def test_classes_without_statistics_do_not_enter_whatever_they_hold():
    f, y, means, covariances, _ = random_case()
    usable = torch.tensor([True, True, False, True])
    means[2], covariances[2] = math.nan, math.inf
    f = f.clone().requires_grad_()
    loss = gaussian_info_nce(f, y, means, covariances, usable, negatives=5.0)
    kept = torch.tensor([0, 1, 3])
    position = torch.tensor([0, 1, 0, 2])
    expected = gaussian_info_nce(f, position[y], means[kept], covariances[kept], torch.ones(3).bool(), negatives=5.0)
    torch.testing.assert_close(loss, torch.where(y == 2, 0.0, expected))
    assert torch.equal(has_contrast(y, usable), y != 2)
    loss.sum().backward()
    assert f.grad.isfinite().all() and not f.grad[y == 2].any() and f.grad[y != 2].any(1).all()


def test_each_query_may_have_negatives_of_its_own():
    f, y, means, covariances, _ = random_case(classes=3)
    usable = torch.ones(12, 3, dtype=torch.bool)
    usable[y == 1, 2] = usable[y == 2, 1] = False  # nested regions contrast with background only
    loss = gaussian_info_nce(f, y, means, covariances, usable)
    for own, other in ((1, 0), (2, 0)):
        pair = torch.tensor([own, other])
        expected = gaussian_info_nce(
            f[y == own], torch.zeros(4).long(), means[pair], covariances[pair], torch.ones(2).bool()
        )
        torch.testing.assert_close(loss[y == own], expected)
    torch.testing.assert_close(loss[y == 0], loss_of(f, means, covariances, y)[y == 0])


@pytest.mark.parametrize("usable", [[False, False], [True, False], [False, True]])
def test_without_a_pair_of_classes_the_loss_is_zero_and_connected(usable):
    f, y, means, covariances, _ = random_case(classes=2)
    f = f.clone().requires_grad_()
    loss = gaussian_info_nce(f, y, means, covariances, torch.tensor(usable), negatives=10.0)
    assert torch.equal(loss, torch.zeros(12, dtype=F64))
    loss.sum().backward()
    assert torch.equal(f.grad, torch.zeros_like(f))


def test_no_query():
    _, _, means, covariances, _ = random_case()
    f = torch.zeros(0, 6, requires_grad=True)
    loss = gaussian_info_nce(f, torch.zeros(0).long(), means, covariances, torch.ones(4).bool())
    assert loss.shape == (0,)
    loss.sum().backward()
    assert f.grad is not None


# ---- statistics and entropy


def test_statistics_are_those_of_the_population():
    f, _, means, covariances, memory = random_case()
    projected = torch.einsum("qd,knd->qkn", f, memory)
    spread = torch.einsum("qd,kde,qe->qk", f, covariances, f)
    torch.testing.assert_close(spread, projected.var(-1, unbiased=False), atol=1e-12, rtol=0)
    trace = covariances.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace, 1 - means.square().sum(1), atol=1e-12, rtol=0)
    assert torch.linalg.eigvalsh(covariances).min() > -1e-12


def test_statistics_of_the_valid_keys_alone():
    _, _, _, _, memory = random_case()
    valid = torch.zeros(4, 40, dtype=torch.bool)
    valid[0, 5:9] = valid[1, 0] = valid[2] = True
    garbage = torch.where(valid[..., None], memory, 99.0)
    means, covariances = gaussian_statistics(garbage, valid)
    torch.testing.assert_close(means[0], memory[0, 5:9].mean(0))
    torch.testing.assert_close(covariances[0], torch.cov(memory[0, 5:9].T, correction=0))
    torch.testing.assert_close(means[1], memory[1, 0])
    assert not covariances[1].any() and not means[3].any() and not covariances[3].any()
    for name, expected in (("diag", torch.diag_embed(covariances.diagonal(dim1=1, dim2=2))), ("none", 0 * covariances)):
        other, cheaper = gaussian_statistics(garbage, valid, name)
        torch.testing.assert_close(other, means)
        torch.testing.assert_close(cheaper, expected)
    with pytest.raises(ValueError, match="full, diag, none"):
        gaussian_statistics(memory, valid, "low rank")


def test_mean_cosine():
    means = torch.tensor([[2.0, 0], [0, 3], [-1, 0], [5, 5]])
    value, pairs = mean_cosine(means, torch.tensor([True, True, True, False]))
    assert value.item() == pytest.approx((0 - 1 + 0) / 3) and pairs.item() == 3
    assert mean_cosine(means, torch.tensor([True, False, False, False]))[0].item() == 0.0
    assert mean_cosine(means[[0, 0]], torch.tensor([True, True]))[0].item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "x, expected", [(0, 0), (1, 0), (0.5, 0.693147), (0.1, 0.325083), (0.9, 0.325083), (0.25, 0.562335)]
)
def test_binary_entropy(x, expected):
    assert binary_entropy(torch.tensor(x, dtype=F64)).item() == pytest.approx(expected, abs=1e-6)


def test_binary_entropy_in_half_precision_is_computed_in_single():
    x = torch.tensor([0.9995], dtype=torch.float16)
    assert binary_entropy(x).dtype == torch.float32
    assert binary_entropy(x).item() == pytest.approx(binary_entropy(x.double()).item(), rel=1e-4) and x.item() < 1
    assert binary_entropy(torch.tensor([-0.1, 1.1])).isnan().all()
