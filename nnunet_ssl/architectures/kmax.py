"""A transformer decoder whose queries are cluster centres of the voxels' features, updated as by k-means.

Source: Yu et al., "k-means mask transformer" (ECCV 2022), as DKUXNet (Wu, Li & Zhang, ISBI 2024) uses it; Eq. 2 there.
Two dimensions or three; C: width of the queries, N: their number, V: voxels of a map. No positional encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_batchnorm
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_ssl.architectures.channel_norm import ChannelNorm
from nnunet_ssl.architectures.depthwise import Pointwise3d, depthwise
from nnunet_ssl.architectures.precision import float32_region
from nnunet_ssl.architectures.recompute import call, chain, maybe_recompute
from nnunet_ssl.architectures.uxnet import Convolution

BATCH_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}  # released code


class Norms(NamedTuple):
    """The kinds of normalisation: functions of the number of channels.

    Attributes:
        pixel: for maps (B, C, *S).
        query: for queries (B, C, N).
        similarity: for attention logits (B, heads, N, N), of the number of heads; ``None``: they are divided by the
            root of the depth instead.
    """

    pixel: Callable[[int], nn.Module]
    query: Callable[[int], nn.Module]
    similarity: Callable[[int], nn.Module] | None


def independent_norms(norm_op: type[nn.Module] | None, **options: object) -> Norms:
    """No sample sees another one: the plans' norm for maps, layer norm for queries.

    A batch norm of queries would have few samples, and a sum over a cluster depends on its size.
    """
    return Norms(lambda c: norm_op(c, **options) if norm_op is not None else nn.Identity(), ChannelNorm, None)


def mixes_images(norms: str, norm_op: type[nn.Module] | None) -> bool:
    """Whether maps are normalised over the batch: all images must then pass at once, and once only."""
    return norms == "batch" or (norm_op is not None and issubclass(norm_op, nn.modules.batchnorm._BatchNorm))


def batch_norms(conv_op: Convolution) -> Norms:
    """Batch norm everywhere, as released."""
    return Norms(
        lambda c: get_matching_batchnorm(conv_op)(c, **BATCH_NORM),
        lambda c: nn.BatchNorm1d(c, **BATCH_NORM),
        lambda heads: nn.BatchNorm2d(heads, **BATCH_NORM),
    )


def assign_and_sum(responses: Tensor, values: Tensor) -> Tensor:
    """For each query the sum of the values of the voxels that respond to it most: U = A v^T, Eq. 2.

    A sum, not a mean, and a hard assignment without a gradient: each voxel's value gets that of its one centre.

    Args:
        responses: (B, N, V).
        values: (B, C, V); receives the gradient.

    Returns:
        (B, C, N), float32 (float64 for float64 values).
    """
    nearest = responses.detach().max(1).indices  # (B, V); on a CPU ten times faster than argmax over this axis
    with float32_region(values.device):
        values = values if values.dtype == torch.float64 else values.float()
        if torch.are_deterministic_algorithms_enabled():  # scatter_add is not, on a GPU
            return values @ F.one_hot(nearest, responses.shape[1]).to(values.dtype)
        sums = values.new_zeros(*values.shape[:2], responses.shape[1])
        return sums.scatter_add(2, nearest[:, None].expand_as(values), values)


class Temperature(nn.BatchNorm1d):
    """Batch norm of everything as one channel, with the statistics of a whole tensor of any shape.

    PyTorch's own would leave a GPU but one multiprocessor for it, since it has one block per channel.
    """

    def __init__(self, scale: float) -> None:
        super().__init__(1, **BATCH_NORM)
        nn.init.constant_(self.weight, scale)

    def forward(self, values: Tensor) -> Tensor:
        if self.training:
            variance, mean = torch.var_mean(values, correction=0)
            self._remember(mean.detach(), variance.detach() * values.numel() / max(1, values.numel() - 1))
        else:
            mean, variance = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        scale = self.weight * (variance + self.eps).rsqrt()
        return torch.addcmul(self.bias - mean * scale, values, scale)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        for running, new in ((self.running_mean, mean), (self.running_var, variance)):
            cast(Tensor, running).lerp_(new.expand(1), cast(float, self.momentum))
        cast(Tensor, self.num_batches_tracked).add_(1)


class MaskPredictor(nn.Module):
    """Responses of voxels to queries: cosine of the voxel's embedding with the query's, times the latter's norm.

    Their scale is learned by a batch norm of one channel over batch, queries and voxels together, in float32.

    Args:
        pixel_channels, query_channels: of the two inputs.
        kernel: of the depth-wise convolution, one odd number per axis.
        widths: of the pixel embedding after its first and second 1x1 convolution.
        conv_op: nn.Conv2d or nn.Conv3d.
        norms: kinds of normalisation.
        scale: initial weight of the batch norm.
        stride: of the depth-wise convolution; above 1 the responses are upsampled linearly.
        recompute: keep no activations of the pixel embedding, see :func:`maybe_recompute`.
        in_pieces: but the outputs of its convolutions, which then need not run again.
    """

    def __init__(
        self,
        pixel_channels: int,
        query_channels: int,
        kernel: Sequence[int],
        widths: tuple[int, int],
        conv_op: Convolution,
        norms: Norms,
        scale: float = 0.1,
        stride: Sequence[int] | None = None,
        recompute: bool | None = False,
        in_pieces: bool = False,
    ) -> None:
        super().__init__()
        strides, padding = tuple(stride or [1] * len(kernel)), tuple(k // 2 for k in kernel)
        depthwise = conv_op(
            pixel_channels, pixel_channels, tuple(kernel), strides, padding, groups=pixel_channels, bias=False
        )
        nn.init.xavier_uniform_(depthwise.weight)
        last = _for_voxels(conv_op)(widths[0], widths[1], 1)
        nn.init.trunc_normal_(last.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(cast(Tensor, last.bias))
        self.embed_pixels = nn.Sequential(
            nn.Sequential(depthwise, norms.pixel(pixel_channels), nn.GELU()),
            nn.Sequential(pointwise(conv_op, pixel_channels, widths[0]), norms.pixel(widths[0]), nn.GELU()),
            nn.Sequential(last, norms.pixel(widths[1])),
        )
        self.embed_queries = nn.Sequential(pointwise(nn.Conv1d, query_channels, widths[1]), norms.query(widths[1]))
        self.temperature = Temperature(scale)
        self.recompute, self.in_pieces, self.strided = recompute, in_pieces, any(s > 1 for s in strides)

    def forward(self, pixels: Tensor, queries: Tensor, taught: int | None = None) -> Tensor:
        """(B, C_p, *S) and (B, C, N) -> R (B, N, *S), float32.

        Args:
            taught: so many images, the first, pass on a gradient; ``None``: all. The others have their part in the
                statistics of the batch norm alone.
        """
        similarities = self.compare(pixels[:taught], queries[:taught])
        if taught is not None and taught < len(pixels):
            with torch.no_grad():
                others = self.compare(pixels[taught:], queries[taught:])
            similarities = torch.cat([similarities, others])
        responses = self.rescale(similarities)
        if self.strided:
            mode = "trilinear" if pixels.ndim == 5 else "bilinear"
            responses = F.interpolate(responses, pixels.shape[2:], mode=mode, align_corners=False)
        return responses

    def compare(self, pixels: Tensor, queries: Tensor) -> Tensor:
        """Responses before their scale, (B, N, *S / stride), float32."""
        run = maybe_recompute(self.recompute, pixels)
        features = self.convolve(pixels, run) if self.in_pieces else run(self.convolve, pixels)
        return cast(Tensor, run(self.cosines, features, self.embed_queries(queries)))

    def convolve(self, pixels: Tensor, run: Any = call) -> Tensor:
        """(B, C_p, *S) -> (B, C2, *S / stride), before the last norm; see :func:`maybe_recompute` for ``run``."""
        (convolution, *rest), (second, *further), (last, _) = cast(Any, self.embed_pixels)
        features = run(chain(*rest, second), depthwise(convolution, pixels))
        return cast(Tensor, run(chain(*further, last), features))

    def cosines(self, features: Tensor, keys: Tensor) -> Tensor:
        """(B, C2, *S) before the last norm and (B, C2, N) -> (B, N, *S); the norm of a voxel's embedding is void."""
        embedding = cast(Any, self.embed_pixels)[2][1](features)
        with float32_region(embedding.device):
            direction = F.normalize(embedding.float(), dim=1)  # its epsilon would be 0 in half precision
            # last, and its shape ready, so that recomputation ends before it
            return (keys.float().mT @ direction.flatten(2)).unflatten(2, embedding.shape[2:])

    def rescale(self, similarities: Tensor) -> Tensor:
        """By the batch norm of one channel."""
        with float32_region(similarities.device):
            one_channel = similarities.flatten(1)[:, None]  # as SyncBatchNorm wants it, which takes its place under DDP
            return self.temperature(one_channel).view(similarities.shape)


class QuerySelfAttention(nn.Module):
    """Queries (B, C, N) -> an update of them (B, C, N), zero at the start; keys have half the width.

    Args:
        width: C.
        heads: divides C / 2.
        norms: kinds of normalisation.
    """

    def __init__(self, width: int, heads: int, norms: Norms) -> None:
        super().__init__()
        self.heads, self.depths = heads, [width // 2, width // 2, width]
        self.project = nn.Sequential(pointwise(nn.Conv1d, width, 2 * width, width**-0.5), norms.query(2 * width))
        self.similarity = norms.similarity(heads) if norms.similarity is not None else None
        self.norm = norms.query(width)
        self.output = nn.Sequential(pointwise(nn.Conv1d, width, width), zeroed(norms.query(width)))

    def forward(self, queries: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(1, (self.heads, -1)) for part in self.project(queries).split(self.depths, 1)
        )  # (B, heads, depth, N)
        products = query.mT @ key
        logits = products / query.shape[2] ** 0.5 if self.similarity is None else self.similarity(products)
        with float32_region(queries.device):
            attention = logits.float().softmax(3)
        retrieved = (value @ attention.to(value.dtype).mT).flatten(1, 2)
        return cast(Tensor, self.output(F.gelu(self.norm(retrieved))))


class KMaxLayer(nn.Module):
    """One step of k-means on a map, then attention among the queries and a feed-forward network.

    At the start, when all updates are zero, a layer is C <- GELU(GELU(C)).

    Args:
        pixel_channels: of the map.
        kernel: of the mask predictor's depth-wise convolution.
        width: C, of the queries; the mask predictor has widths C and C / 2, the feed-forward network 8 C.
        heads: of the attention.
        conv_op: nn.Conv2d or nn.Conv3d.
        norms: kinds of normalisation.
        scale: see :class:`MaskPredictor`.
        recompute: keep no activations of the maps but the outputs of convolutions, see :func:`maybe_recompute`.
    """

    def __init__(
        self,
        pixel_channels: int,
        kernel: Sequence[int],
        width: int,
        heads: int,
        conv_op: Convolution,
        norms: Norms,
        scale: float = 0.1,
        recompute: bool | None = False,
    ) -> None:
        super().__init__()
        self.pixels = nn.Sequential(nn.GELU(), pointwise(conv_op, pixel_channels, width), norms.pixel(width), nn.GELU())
        self.queries = nn.Sequential(pointwise(nn.Conv1d, width, width), norms.query(width), nn.GELU())
        self.values = nn.Sequential(pointwise(conv_op, width, width, width**-0.5), norms.pixel(width))
        widths = (width, width // 2)
        self.predictor = MaskPredictor(
            width, width, kernel, widths, conv_op, norms, scale, recompute=recompute, in_pieces=True
        )
        self.update = nn.Sequential(norms.query(width), pointwise(nn.Conv1d, width, width), zeroed(norms.query(width)))
        self.attention = QuerySelfAttention(width, heads, norms)
        self.feed_forward = nn.Sequential(
            pointwise(nn.Conv1d, width, 8 * width),
            norms.query(8 * width),
            nn.GELU(),
            pointwise(nn.Conv1d, 8 * width, width),
            zeroed(norms.query(width)),
        )

    def forward(self, centres: Tensor, features: Tensor, taught: int | None = None) -> tuple[Tensor, Tensor]:
        """Centres (B, C, N) and a map (B, C_l, *S_l) -> new centres and the responses (B, N, *S_l) to the old ones.

        For ``taught`` see :class:`MaskPredictor`.
        """
        run, (first, projection, *rest) = maybe_recompute(self.predictor.recompute, features), cast(Any, self.pixels)
        pixels = run(chain(*rest), run(chain(first, projection), features))
        queries = self.queries(centres)
        responses = self.predictor(pixels, queries, taught)
        sums = assign_and_sum(responses.flatten(2), self.values(pixels).flatten(2))
        centres = centres + self.update(sums)
        centres = F.gelu(centres + self.attention(queries))  # of the queries before the update
        return F.gelu(centres + self.feed_forward(centres)), responses


def pointwise(conv_op: Convolution, before: int, after: int, std: float | None = None) -> nn.Module:
    """A 1x1 convolution without bias, from a normal distribution cut off at two standard deviations.

    Args:
        std: ``None`` for (2 / before)^0.5.
    """
    conv = _for_voxels(conv_op)(before, after, 1, bias=False)
    std = (2 / before) ** 0.5 if std is None else std
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    return conv


def _for_voxels(conv_op: Convolution) -> Convolution:
    return Pointwise3d if conv_op is nn.Conv3d else conv_op


def zeroed(norm: nn.Module) -> nn.Module:
    """With an initial scale of 0: the residual branch that ends in it starts as nothing."""
    nn.init.zeros_(cast(Tensor, norm.weight))
    return norm
