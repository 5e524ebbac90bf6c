from __future__ import annotations

from itertools import combinations, product

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_ssl.architectures import complementarity, cpu_attention
from nnunet_ssl.architectures.complementarity import from_patches, normalize_logits, to_patches
from nnunet_ssl.architectures.skcdf import ChannelAttention, SemanticKnowledgeComplementarity

SIZES = [(4, 4), (5, 3), (4, 2, 4), (3, 1, 5)]
CHANNELS = 4


def module(size=(4, 2, 4), seed: int = 0, **options) -> SemanticKnowledgeComplementarity:
    """No dropout, all samples as context, double precision, no weight at a special value."""
    torch.manual_seed(seed)
    options = {"dropout": 0.0, "max_context": None, **options}
    built = SemanticKnowledgeComplementarity(CHANNELS, size, **options).double()
    for parameter in built.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return built


def features(batch: int, size=(4, 2, 4), seed: int = 0) -> Tensor:
    return torch.randn(batch, CHANNELS, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(autouse=True)
def double_precision_is_kept(monkeypatch):
    """The module casts to float32; these tests are sharper in float64."""
    monkeypatch.setattr(Tensor, "float", lambda self: self)


# ---- against the definition, written out


def reference_tokens(block: ChannelAttention, x: Tensor) -> Tensor:
    """(B, n, G, C) by the convolution that the paper's released experiments used, channels folded into the batch."""
    dims = len(block.size)
    padding = [p - s for s, p in zip(block.size, block.padded, strict=True)]
    x = F.pad(x, [v for amount in reversed(padding) for v in (0, amount)])
    convolve = (F.conv2d, F.conv3d)[dims - 2]
    weight = block.token_map.weight.reshape(-1, 1, *block.patch)
    folded = convolve(x.reshape(-1, 1, *block.padded), weight, block.token_map.bias, stride=block.patch)
    return folded.reshape(*x.shape[:2], weight.shape[0], -1).permute(0, 3, 2, 1)


def reference_output(block: ChannelAttention, tokens: Tensor, attended: Tensor) -> Tensor:
    """Residual, norm, voxels back to their place one by one, 1x1 convolution, GELU."""
    tokens = block.norm_output(tokens + attended @ block.projection.weight.T)
    batch, channels = tokens.shape[0], tokens.shape[-1]
    voxels = tokens.new_zeros(batch, channels, *block.padded)
    grid = [s // p for s, p in zip(block.padded, block.patch, strict=True)]
    for n, patch_index in enumerate(product(*map(range, grid))):
        for g, offset in enumerate(product(*map(range, block.patch))):
            place = [i * p + o for i, p, o in zip(patch_index, block.patch, offset, strict=True)]
            voxels[(slice(None), slice(None), *place)] = tokens[:, n, g]
    voxels = voxels[(..., *(slice(0, s) for s in block.size))]
    convolve = (F.conv2d, F.conv3d)[len(block.size) - 2]
    weight = block.output_map.weight.reshape(channels, channels, *[1] * len(block.size))
    return F.gelu(convolve(voxels, weight, block.output_map.bias))


def instance_norm(logits: Tensor) -> Tensor:
    return (logits - logits.mean()) / (logits.var(correction=0) + 1e-5).sqrt()


def reference_cross(block: ChannelAttention, x: Tensor, context: Tensor) -> Tensor:
    tokens, others = reference_tokens(block, x), reference_tokens(block, context)
    normed, other_normed = block.norm_tokens(tokens), block.norm_tokens(others)
    attended = tokens.new_zeros(*tokens.shape[:3], block.query.out_features)
    for i, p in product(range(x.shape[0]), range(tokens.shape[1])):
        query = (normed[i, p] @ block.query.weight.T).T  # (J, G)
        key = torch.cat([other_normed[r, p] @ block.key.weight.T for r in range(context.shape[0])], 1)  # (G, R J)
        value = torch.cat([other_normed[r, p] @ block.value.weight.T for r in range(context.shape[0])], 1)
        attended[i, p] = (instance_norm(query @ key).softmax(-1) @ value.T).T
    return reference_output(block, tokens, attended)


def reference_self(block: ChannelAttention, x: Tensor, heads: int) -> Tensor:
    tokens = reference_tokens(block, x)
    normed = block.norm_tokens(tokens)
    attended = tokens.new_zeros(*tokens.shape[:3], block.query.out_features)
    width = block.query.out_features // heads
    for i, p, head in product(range(x.shape[0]), range(tokens.shape[1]), range(heads)):
        channels = slice(head * width, (head + 1) * width)
        query, key, value = (
            (normed[i, p] @ linear.weight[channels].T).T for linear in (block.query, block.key, block.value)
        )
        attended[i, p, :, channels] = (instance_norm(query @ key.T).softmax(-1) @ value).T
    return reference_output(block, tokens, attended)


@pytest.mark.parametrize("size", SIZES)
def test_cross_mode_is_the_definition(size):
    skcm = module(size)
    labeled, unlabeled = features(2, size), features(3, size, seed=1)
    outputs = skcm.cross(labeled, unlabeled)
    for block in (skcm.local_attention, skcm.global_attention):
        labeled, unlabeled = reference_cross(block, labeled, unlabeled), reference_cross(block, unlabeled, labeled)
    torch.testing.assert_close(outputs[0], labeled)
    torch.testing.assert_close(outputs[1], unlabeled)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("self_heads", "groups"), [("split", 2), ("merged", 1)])
def test_self_mode_is_the_definition(size, self_heads, groups):
    skcm = module(size, self_heads=self_heads)
    x = features(2, size)
    expected = reference_self(skcm.global_attention, reference_self(skcm.local_attention, x, groups), groups)
    torch.testing.assert_close(skcm(x), expected)


@pytest.mark.parametrize(("size", "patch"), [((4, 6), (2, 2)), ((2, 4, 2), (2, 2, 1)), ((2, 3, 4), (2, 3, 4))])
def test_patches_are_row_major_and_come_back(size, patch):
    x = features(2, size)
    patches = to_patches(x, patch)
    assert torch.equal(from_patches(patches.mT, patch, size), x)
    first = x[0, 1][tuple(slice(p) for p in patch)].flatten()
    last = x[0, 1][tuple(slice(s - p, s) for s, p in zip(size, patch, strict=True))].flatten()
    assert torch.equal(patches[0, 0, 1], first) and torch.equal(patches[0, -1, 1], last)


def test_parameter_counts_of_the_published_size():
    with torch.device("meta"):
        skcm = SemanticKnowledgeComplementarity(512, (4, 8, 8))
    count = [sum(p.numel() for p in block.parameters()) for block in (skcm.local_attention, skcm.global_attention)]
    assert count == [2_361_928, 2_427_648]


# ---- properties


@pytest.mark.parametrize("size", [(4, 4), (7, 5), (4, 4, 4), (5, 3, 4), (1, 3, 2), (1, 1)])
def test_shapes_for_any_two_batch_sizes(size):
    skcm = module(size)
    outputs = skcm.cross(features(3, size), features(1, size, seed=1))
    assert [tuple(o.shape) for o in outputs] == [(3, CHANNELS, *size), (1, CHANNELS, *size)]
    assert skcm(features(3, size)).shape == (3, CHANNELS, *size)
    assert all(o.isfinite().all() for o in outputs)


def test_an_empty_stream_leaves_the_other_in_self_mode():
    skcm = module()
    x, none = features(2), features(0)
    labeled, unlabeled = skcm.cross(x, none)
    assert torch.equal(labeled, skcm(x)) and unlabeled.shape == none.shape
    labeled, unlabeled = skcm.cross(none, x)
    assert torch.equal(unlabeled, skcm(x)) and labeled.shape == none.shape
    assert not unlabeled.requires_grad


def test_permuting_one_stream_permutes_its_outputs_alone():
    skcm, order = module(), [2, 0, 1]
    labeled, unlabeled = features(3), features(2, seed=1)
    first, second = skcm.cross(labeled, unlabeled), skcm.cross(labeled[order], unlabeled)
    torch.testing.assert_close(second[0], first[0][order], atol=1e-5, rtol=0)
    torch.testing.assert_close(second[1], first[1], atol=1e-5, rtol=0)


def test_swapping_the_streams_swaps_the_outputs():
    skcm = module()
    a, b = features(3), features(2, seed=1)
    first, second = skcm.cross(a, b), skcm.cross(b, a)
    assert torch.equal(first[0], second[1]) and torch.equal(first[1], second[0])


def test_a_context_of_copies_counts_once():
    skcm = module()
    x, context = features(2), features(2, seed=1)
    once = skcm.cross(x, context[:1])[0]
    torch.testing.assert_close(skcm.cross(x, context[[0, 0]])[0], once, atol=1e-5, rtol=0)
    both = skcm.cross(x, context)[0]
    assert (skcm.cross(x, context[[0, 0, 1]])[0] - both).abs().max() > 1e-4


@pytest.mark.parametrize("projection", ["query", "key"])
def test_the_scale_of_queries_and_keys_does_not_matter(projection):
    skcm = module()
    x, context = features(2), features(2, seed=1)
    before = *skcm.cross(x, context), skcm(x)
    for block in (skcm.local_attention, skcm.global_attention):
        getattr(block, projection).weight.data *= 10
    for old, new in zip(before, (*skcm.cross(x, context), skcm(x)), strict=True):
        torch.testing.assert_close(new, old, atol=1e-5, rtol=0)


def test_queries_of_zero_average_the_context():
    block = module().local_attention
    torch.nn.init.zeros_(block.query.weight)
    seen = []
    block.projection.register_forward_hook(lambda _, __, output: seen.append(output))
    x, context = features(2), features(3, seed=1)
    block.cross_mode(x, context, None, None)
    value = block.value(block.norm_tokens(reference_tokens(block, context)))  # (R, n, G, J)
    expected = value.mean((0, 3))[None, :, :, None] * block.projection.weight.sum(1)
    _, labeled = seen  # the guided stream runs first
    torch.testing.assert_close(labeled, expected.expand_as(labeled))


def test_each_matrix_of_logits_has_mean_zero_and_variance_one():
    query, key = 3 + 9 * features(3, (5, 8)), 5 - 9 * features(3, (7, 8), seed=1)
    key_of_all = key[:1]  # (1, C, 7, 8) serves all leading axes of the query
    for keys in (key, key_of_all):
        logits = query @ keys.mT
        scaled = normalize_logits(query, keys) @ keys.mT
        centred = scaled - scaled.mean((-2, -1), keepdim=True)
        torch.testing.assert_close(centred, F.instance_norm(logits))
        variance = centred.var((-2, -1), correction=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-5, rtol=0)


def test_cross_is_self_attention_on_equal_samples_with_one_head():
    x = features(1)
    one, two = module(num_heads=1), module(num_heads=2)
    torch.testing.assert_close(one.cross(x, x)[0], one(x), atol=1e-6, rtol=0)
    assert (two.cross(x, x)[0] - two(x)).abs().max() > 1e-4


def test_with_its_own_context_a_sample_is_seen_as_in_cross_mode():
    skcm, x = module(num_heads=2), features(3)
    for sample in range(3):
        alone = x[sample : sample + 1]
        torch.testing.assert_close(skcm(x, as_context=True)[sample : sample + 1], skcm.cross(alone, alone)[0])
    assert (skcm(x, as_context=True) - skcm(x)).abs().max() > 1e-3


def test_samples_do_not_see_each_other_in_self_mode():
    skcm = module()
    x = features(3).requires_grad_()
    (gradient,) = torch.autograd.grad(skcm(x)[1].square().sum(), x)
    assert gradient[1].abs().sum() > 0 and not gradient[[0, 2]].any()
    torch.testing.assert_close(skcm(x[1:2]), skcm(x)[1:2])


def test_unlabelled_features_are_constants_in_cross_mode():
    skcm = module()
    labeled, unlabeled = features(2).requires_grad_(), features(2, seed=1).requires_grad_()
    output, guided = skcm.cross(labeled, unlabeled)
    gradients = torch.autograd.grad(output.square().sum(), (labeled, unlabeled), allow_unused=True)
    assert gradients[0].abs().sum() > 0 and gradients[1] is None
    assert not guided.requires_grad
    assert (skcm.cross(labeled, unlabeled + 1e-2 * features(2, seed=2))[0] - output).abs().max() > 1e-5


def test_every_weight_learns_in_both_modes():
    skcm = module()
    x, context = features(2), features(2, seed=1)
    for output in (skcm.cross(x, context)[0], skcm(x)):
        for gradient in torch.autograd.grad(output.square().sum(), list(skcm.parameters())):
            assert gradient.abs().sum() > 0


# ---- options


def test_the_token_map_starts_as_the_identity():
    torch.manual_seed(0)
    block = ChannelAttention(CHANNELS, (4, 2, 4), (2, 2, 2)).double()
    x = features(2)
    tokens, normed = block._embed(x)
    assert torch.equal(tokens, to_patches(x, (2, 2, 2)).mT)
    torch.testing.assert_close(normed, F.layer_norm(tokens, (CHANNELS,), eps=1e-6))


def test_the_published_token_map_is_xavier_normal():
    torch.manual_seed(0)
    weight = ChannelAttention(CHANNELS, (6, 6, 6), (6, 6, 6), token_init="xavier").token_map.weight
    convolution = torch.nn.init.xavier_normal_(torch.empty(216, 1, 6, 6, 6))
    assert weight.std().item() == pytest.approx(convolution.std().item(), rel=0.02)


def test_options_hold_for_both_blocks():
    torch.manual_seed(0)
    skcm = SemanticKnowledgeComplementarity(CHANNELS, (6, 6, 6), token_init="xavier", dropout=0.3, num_heads=3)
    for block, tokens in ((skcm.local_attention, 8), (skcm.global_attention, 216)):
        convolution = torch.nn.init.xavier_normal_(torch.empty(tokens, 1, tokens))
        assert block.token_map.weight.std().item() == pytest.approx(convolution.std().item(), rel=0.25)
        assert (block.dropout, block.query.out_features) == (0.3, 3 * CHANNELS)


@pytest.mark.parametrize("mode", ["cross", "self"])
def test_the_projected_output_is_dropped_too(monkeypatch, mode):
    def without_dropout(query, key, value, dropout):
        return (query @ key.mT).softmax(-1) @ value

    monkeypatch.setattr(complementarity, "attention", without_dropout)
    skcm, x, context = module(dropout=0.5), features(2), features(2, seed=1)
    first, second = ((skcm.cross(x, context)[0] if mode == "cross" else skcm(x)) for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_acts_on_the_labelled_stream_while_training():
    skcm = module(dropout=0.5)
    x, context = features(2), features(2, seed=1)
    first, second = skcm.cross(x, context), skcm.cross(x, context)
    assert not torch.equal(first[0], second[0])
    without = module(dropout=0.0).cross(x, context)
    local = [m.local_attention.cross_mode(x, context, None, None)[1] for m in (skcm, module(dropout=0.0))]
    assert torch.equal(*local)
    first, second = (skcm.local_attention.cross_mode(x, context, None, None, guided_dropout=True)[1] for _ in range(2))
    assert not torch.equal(first, second) and not torch.equal(first, local[0])
    skcm.eval()
    assert all(torch.equal(a, b) for a, b in zip(skcm.cross(x, context, True), without, strict=True))
    assert torch.equal(skcm(x), module(dropout=0.0)(x))


def test_context_is_a_random_subset_of_the_other_stream():
    capped, full = module(max_context=2), module()
    x, context = features(1), features(4, seed=1)
    # the context passes the local block with the one query sample as its own context, so that no subset changes it
    possible = [full.cross(x, context[list(pair)])[0] for pair in combinations(range(4), 2)]
    torch.manual_seed(0)
    drawn = set()
    for _ in range(40):
        output, guided = capped.cross(x, context)
        matches = [i for i, p in enumerate(possible) if torch.allclose(output, p, atol=1e-9, rtol=0)]
        assert len(matches) == 1 and guided.shape == context.shape
        drawn.add(matches[0])
    assert drawn == set(range(6))


@pytest.mark.parametrize(
    "options", [{"max_context": 0}, {"token_init": "dirac"}, {"self_heads": "both"}], ids=lambda o: next(iter(o))
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        module(**options)


def test_another_bottleneck_is_refused():
    with pytest.raises(ValueError, match="patch size"):
        module((4, 4))(features(1, (4, 5)))


# ---- memory and precision


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returns."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        output = function(*arguments, **(keywords or {}))
        self.bytes = max(self.bytes, *(t.nbytes for t in tree_leaves(output) if isinstance(t, Tensor)), 0)
        return output


@pytest.mark.parametrize(
    ("max_context", "dropout", "limit"),
    [(2, 0.1, 384), (None, 0.1, 2304), (2, 0.0, 2)],
    ids=["capped", "uncapped", "without matrices"],
)
def test_attention_of_2d_batches_of_12_stays_under_the_cap(monkeypatch, max_context, dropout, limit):
    """In MiB: 12 samples, 4 patches, J = 1024, R J = 2048. Fused kernels (here: without dropout) form no matrix."""
    monkeypatch.setattr(cpu_attention, "BLOCK", 1 << 40)  # many blocks of fake tensors take a minute
    with FakeTensorMode():  # shapes alone: nothing is computed, and reading a value would raise
        skcm = SemanticKnowledgeComplementarity(512, (4, 4), dropout=dropout, max_context=max_context)
        labeled, unlabeled = torch.empty(12, 512, 4, 4, requires_grad=True), torch.empty(12, 512, 4, 4)
        with Largest() as cross:
            skcm.cross(labeled, unlabeled)[0].sum().backward()
        with Largest() as own:
            skcm(labeled).sum().backward()
    assert limit / 2 < cross.bytes / 2**20 <= limit
    assert own.bytes / 2**20 <= 96  # 12 samples, 4 patches, 2 heads, 512 x 512


def test_attention_is_float32_inside_autocast(monkeypatch):
    monkeypatch.undo()
    skcm = module().float()
    x, context = features(2).float(), features(2, seed=1).float()
    outside = *skcm.cross(x, context), skcm(x)
    dtypes = []
    attention = F.scaled_dot_product_attention

    def recorded(*tensors: Tensor, **options) -> Tensor:
        dtypes.extend(t.dtype for t in tensors)
        return attention(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        inside = *skcm.cross(x, context), skcm(x)
        half = skcm.cross(x.bfloat16(), context.bfloat16())
    assert len(dtypes) == 30 and set(dtypes) == {torch.float32}  # 10 calls of query, key and value
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert {o.dtype for o in (*inside, *half)} == {torch.float32}
