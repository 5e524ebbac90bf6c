"""The k-means decoder: published sizes, the update by hand, what starts as nothing and what carries no gradient."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.architectures.kmax import (
    BATCH_NORM,
    KMaxLayer,
    MaskPredictor,
    QuerySelfAttention,
    Temperature,
    assign_and_sum,
    batch_norms,
    independent_norms,
)

INDEPENDENT = independent_norms(nn.InstanceNorm2d, affine=True)


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def layer(norms=INDEPENDENT) -> KMaxLayer:
    torch.manual_seed(0)
    return KMaxLayer(6, [5, 5], 16, 2, nn.Conv2d, norms, 1.0)


def test_published_parameter_counts():
    with torch.device("meta"):
        norms = batch_norms(nn.Conv3d)
        unused_head = 256 * 32 + 32  # of the released layer, left out here
        for channels, count in ((384, 1_722_290), (192, 1_673_138)):
            built = KMaxLayer(channels, [5] * 3, 256, 8, nn.Conv3d, norms)
            assert size(built) + unused_head == count == 1_623_986 + 256 * channels
        coco_head = 256 * 133 + 133
        predictor = MaskPredictor(48, 256, [5] * 3, (256, 128), nn.Conv3d, norms)
        assert size(predictor) + coco_head == 119_255


# ---- assignment and sum


def by_hand() -> tuple[torch.Tensor, torch.Tensor]:
    responses = torch.tensor([[[2.0, 1.0, 0.0], [1.0, 3.0, 0.5]]])
    values = torch.tensor([[[1.0, 0.0, 4.0], [0.0, 2.0, 4.0]]])  # (B, C, V)
    return responses.requires_grad_(), values.requires_grad_()


def test_sums_of_the_assigned_values():
    responses, values = by_hand()
    sums = assign_and_sum(responses, values)
    assert sums[0].T.tolist() == [[1.0, 0.0], [4.0, 6.0]]
    sums.sum().backward()
    assert responses.grad is None and torch.equal(values.grad, torch.ones(1, 2, 3))


def test_each_value_gets_the_gradient_of_its_centre():
    responses, values = by_hand()
    (assign_and_sum(responses, values) * torch.tensor([[10.0, 20.0]])).sum().backward()
    assert values.grad[0, 0].tolist() == [10.0, 20.0, 20.0]


def test_scatter_and_product_with_the_one_hot_assignment_agree():
    generator = torch.Generator().manual_seed(0)
    responses, values = (torch.randn(2, n, 50, generator=generator) for n in (5, 7))
    scattered = assign_and_sum(responses, values)
    torch.use_deterministic_algorithms(True)
    try:
        product = assign_and_sum(responses, values)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(scattered, product, atol=1e-6, rtol=1e-6)
    one_hot = F.one_hot(responses.argmax(1), 5).float()
    torch.testing.assert_close(scattered, torch.einsum("bvn,bcv->bcn", one_hot, values))


def test_sums_do_not_overflow_in_half_precision():
    values = torch.full((1, 1, 1000), 100.0, dtype=torch.half)
    sums = assign_and_sum(torch.zeros(1, 2, 1000), values)
    assert sums.dtype == torch.float32 and sums.sum() == 100_000


# ---- responses


def predictor(**options) -> MaskPredictor:
    torch.manual_seed(0)
    return MaskPredictor(6, 16, [5, 5], (8, 4), nn.Conv2d, INDEPENDENT, **options)


def respond(module: MaskPredictor, embedding: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return module.rescale(module.cosines(embedding, keys))


def test_the_temperature_is_one_batch_norm_over_everything():
    module = predictor(scale=0.3)
    module.embed_pixels[2][1] = nn.Identity()
    embedding, keys = torch.randn(2, 4, 5, 3), torch.randn(2, 4, 7)
    responses = respond(module, embedding, keys)
    raw = torch.einsum("bcij,bcn->bnij", F.normalize(embedding, dim=1), keys)
    expected = 0.3 * (raw - raw.mean()) / (raw.var(unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(responses, expected, atol=1e-6, rtol=1e-5)
    assert module.temperature.running_mean.item() == pytest.approx(0.01 * raw.mean().item(), rel=1e-4)
    volumetric = nn.BatchNorm3d(1, eps=1e-3)(raw.reshape(2, 1, 7, 5, 3))
    torch.testing.assert_close(0.3 * volumetric.view_as(responses), responses, atol=1e-6, rtol=1e-5)


def test_the_temperature_is_pytorchs_batch_norm_in_everything_but_speed():
    ours, theirs = Temperature(0.3), nn.BatchNorm1d(1, **BATCH_NORM)
    nn.init.constant_(theirs.weight, 0.3)
    assert [*ours.state_dict()] == [*theirs.state_dict()]
    for module in (ours, theirs):
        nn.init.constant_(module.bias, 0.2)
    for training in (True, True, False):
        x = (3 * torch.randn(2, 7, 40) - 1).requires_grad_()
        for module in (ours, theirs):
            module.train(training)
        found, wanted = ours(x), theirs(x.flatten()[:, None]).view_as(x)
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
        weight = torch.randn_like(x)
        gradients = [
            torch.autograd.grad((v * weight).sum(), (x, m.weight, m.bias)) for v, m in ((found, ours), (wanted, theirs))
        ]
        for mine, other in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-5)
        for mine, other in zip(ours.buffers(), theirs.buffers(), strict=True):
            torch.testing.assert_close(mine, other)


def test_the_norm_of_a_voxels_embedding_means_nothing():
    module = predictor()
    module.embed_pixels[2][1] = nn.Identity()
    embedding, keys = torch.randn(2, 4, 5, 3), torch.randn(2, 4, 7)
    factor = 0.1 + 5 * torch.rand(2, 1, 5, 3)
    for training in (True, False):
        module.train(training)
        torch.testing.assert_close(
            respond(module, factor * embedding, keys), respond(module, embedding, keys), atol=1e-5, rtol=1e-5
        )
    assert not torch.allclose(respond(module, embedding, 2 * keys), respond(module, embedding, keys))


def test_responses_stay_in_float32_under_mixed_precision():
    module = predictor()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module(torch.randn(2, 6, 5, 5), torch.randn(2, 16, 7)).dtype == torch.float32


def test_coarse_responses_are_upsampled():
    module = predictor(stride=[2, 2])
    pixels, queries = torch.randn(2, 6, 8, 12), torch.randn(2, 16, 7)
    coarse = respond(module, module.convolve(pixels), module.embed_queries(queries))
    assert coarse.shape == (2, 7, 4, 6)
    torch.testing.assert_close(module(pixels, queries), F.interpolate(coarse, (8, 12), mode="bilinear"))


def test_untaught_images_count_in_the_statistics_alone():
    module, loss = predictor(scale=0.3), torch.nn.CrossEntropyLoss()
    pixels, queries = torch.randn(3, 6, 5, 5).requires_grad_(), torch.randn(3, 16, 7).requires_grad_()
    classes, found = torch.randint(7, (2, 5, 5)), {}
    for taught in (None, 2, 3):
        responses = module(pixels, queries, taught)
        found[taught] = (responses, *torch.autograd.grad(loss(responses[:2], classes), (pixels, queries)))
    for mine, other in zip(found[None], found[3], strict=True):
        assert torch.equal(mine, other)
    torch.testing.assert_close(found[2][0], found[None][0])  # the third image scales the responses of all
    assert not torch.allclose(module(pixels[:2], queries[:2]), found[2][0][:2], atol=1e-3)
    for mine, other in zip(found[2][1:], found[None][1:], strict=True):
        assert not mine[2].any() and other[2].any()
        torch.testing.assert_close(mine[:2], other[:2])


# ---- a layer


@pytest.mark.parametrize("norms", [INDEPENDENT, batch_norms(nn.Conv2d)], ids=["independent", "batch"])
def test_a_layer_starts_without_an_update(norms):
    centres, features = torch.randn(2, 16, 5), torch.randn(2, 6, 4, 4)
    found, responses = layer(norms)(centres, features)
    torch.testing.assert_close(found, F.gelu(F.gelu(centres)))
    assert responses.shape == (2, 5, 4, 4)


def awake(module: KMaxLayer) -> KMaxLayer:
    """With scales that are not zero."""
    for branch in (module.update, module.attention.output, module.feed_forward):
        nn.init.constant_(branch[-1].weight, 0.5)
    return module


def test_attention_sees_the_queries_before_the_update():
    module = awake(layer())
    centres, features = torch.randn(2, 16, 5), torch.randn(2, 6, 4, 4)
    found, responses = module(centres, features)
    pixels, queries = module.pixels(features), module.queries(centres)
    sums = assign_and_sum(responses.flatten(2), module.values(pixels).flatten(2))
    expected = F.gelu(centres + module.update(sums) + module.attention(queries))
    expected = F.gelu(expected + module.feed_forward(expected))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, F.gelu(F.gelu(centres)), atol=0.1)


def test_only_the_responses_teach_the_mask_predictor():
    module = awake(layer())
    centres, features = torch.randn(2, 16, 5), torch.randn(2, 6, 4, 4)
    found, responses = module(centres, features)
    heads = [*module.predictor.parameters()]
    assert len(heads) == 15  # 17 as released, with the unused class head
    gradients = torch.autograd.grad(found.square().sum(), heads, retain_graph=True, allow_unused=True)
    assert all(g is None for g in gradients)
    responses.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in heads if p is not module.predictor.temperature.bias)


def test_attention_by_hand():
    torch.manual_seed(0)
    module = QuerySelfAttention(16, 2, INDEPENDENT)
    nn.init.ones_(module.output[-1].weight)
    queries = torch.randn(1, 16, 5)
    query, key, value = module.project(queries).split([8, 8, 16], 1)
    parts = []
    for head in range(2):
        q, k = (x[0, 4 * head : 4 * head + 4] for x in (query, key))
        attention = (q.T @ k / 2).softmax(1)  # of each query over the keys; the root of the depth is 2
        parts.append(value[0, 8 * head : 8 * head + 8] @ attention.T)
    expected = module.output(F.gelu(module.norm(torch.cat(parts)[None])))
    torch.testing.assert_close(module(queries), expected)
