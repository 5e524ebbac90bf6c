"""A device that says where a GPU would have to be waited for."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class NoWaiting(TorchDispatchMode):
    """Fails where a GPU would be waited for, and PyTorch's meta device, which fails at most of it, says nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket in (aten.index_put_, aten.index_put, aten._index_put_impl_):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), "a boolean index is written to"
        result = func(*args, **kwargs)
        if func.overloadpacket is aten._to_copy and not kwargs.get("non_blocking"):
            where = {x.device.type for x in tree_leaves((args, result)) if isinstance(x, torch.Tensor)}
            assert len(where) == 1, "a copy between host and device waits"
        return result


def without_waiting(trainer: type) -> type:
    """The trainer, whose steps fail where they wait for the device."""

    def train_step(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        with NoWaiting():
            return trainer.train_step(self, batch)  # type: ignore[attr-defined]

    return type(trainer.__name__, (trainer,), {"train_step": train_step})
