"""A training step on the meta device, whose tensors have a shape and no data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from nnunet_ssl.architectures.cpu_attention import attention_in_blocks
from nnunet_ssl.architectures.precision import in_float32_region_on_meta

META = "meta"
HALF = {
    *("conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "linear", "matmul", "__matmul__", "__rmatmul__"),
    *("mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
}
"""Functions that autocast evaluates in half precision on CUDA, as far as networks and losses use them."""
FULL = {
    *("softmax", "log_softmax", "cross_entropy", "nll_loss", "binary_cross_entropy_with_logits", "mse_loss", "kl_div"),
    *("layer_norm", "group_norm", "normalize", "norm", "cosine_similarity", "cdist", "softplus", "logsumexp"),
    *("exp", "expm1", "log", "log1p", "pow", "__pow__", "rsqrt", "reciprocal", "sum", "prod", "cumsum"),
}
"""Functions that it evaluates in float32."""


class ShapesAlone(TorchFunctionMode):
    """Lets a step run whose tensors have no data.

    ``.cpu()`` of such a tensor gives zeros, and where nnU-Net's own code asks whether it is true, it is. Any other look
    at its values is PyTorch's own error, as it would make a GPU wait.

    Args:
        fused_attention: attention with one of CUDA's fused kernels; otherwise as products of matrices, those with
            dropout as on a CPU.

    Attributes:
        reads: tensors that were read with ``.cpu()``.
    """

    def __init__(self, fused_attention: bool) -> None:
        super().__init__()
        self.fused_attention = fused_attention
        self.reads = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "cpu" and args[0].device.type == META:
            self.reads += 1
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if name == "__bool__" and args[0].device.type == META and _called_by_nnunet():
            return True  # its loss with an ignore label asks whether any voxel is annotated
        if name == "exponential_" and args[0].device.type == META:
            kwargs.pop("generator", None)  # which PyTorch does not take there
        if name == "scaled_dot_product_attention" and self.fused_attention:
            return _fused_attention(*args, **kwargs)
        if name == "scaled_dot_product_attention" and kwargs.get("dropout_p"):
            query, key, value = args
            return attention_in_blocks(query, key, value, kwargs["dropout_p"])
        return func(*args, **kwargs)


def _called_by_nnunet() -> bool:
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals["__name__"].startswith(("nnunet_ssl.planning", "torch")):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None and frame.f_globals["__name__"].startswith("nnunetv2.")


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, **_: Any
) -> Tensor:
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, attn_mask, True, dropout_p)[0]


class HalfPrecision(TorchFunctionMode):
    """What autocast on CUDA does to the types of tensors, on a device that has no autocast.

    Args:
        dtype: of half precision.
    """

    def __init__(self, dtype: torch.dtype = torch.float16) -> None:
        super().__init__()
        self.dtype = dtype
        self.depth = 0
        self._cast: dict[int, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Where the network and nnU-Net's loss run. Weights are cast once."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self._cast.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if func is Tensor.backward or func is torch.autograd.grad:
            return self._through(func, args, kwargs or {})
        # behind the forward pass Python computes anew alone what was not kept, in the precision that it had
        wanted = (name in HALF or name in FULL) and not in_float32_region_on_meta()
        if wanted and (self.depth or torch._C._current_autograd_node() is not None):
            to: Callable[[Any], Any] = self._half if name in HALF else _full
            args, kwargs = tree_map(to, args), tree_map(to, kwargs)
        return func(*args, **(kwargs or {}))

    def _through(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A backward pass inside the mode, which PyTorch leaves for a call that it hands to it."""
        run = func
        if func is Tensor.backward:
            run, kwargs = torch.autograd.backward, dict(kwargs)
            kwargs["grad_tensors"] = kwargs.pop("gradient", None)
        with patch.object(torch.autograd, "has_torch_function", lambda *_: False), self:
            return run(*args, **kwargs)

    def _half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.device.type != META:
            return value
        if not (value.is_leaf and value.requires_grad) or not self.depth:
            return value.to(self.dtype)
        if id(value) not in self._cast:
            self._cast[id(value)] = value.to(self.dtype)
        return self._cast[id(value)]


def _full(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half and value.device.type == META else value
