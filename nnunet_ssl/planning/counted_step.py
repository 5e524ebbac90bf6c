"""Operations and memory of what runs inside, counted call by call from shapes alone: tensors need no data."""

from __future__ import annotations

import weakref
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nnunet_ssl.planning.known_shapes import KnownShapes

aten = torch.ops.aten


def _convolution_backward(grad: Any, features: Any, weight: Any, *options: Any, **_: Any) -> int:
    """Each gradient of a convolution has as many multiplications as its forward pass.

    PyTorch's formula forgets the groups in the gradient of the weights: for a depth-wise convolution it counts as many
    times too many as there are channels.
    """
    transposed, mask = options[4], options[-1]
    positions = features if transposed else grad
    once = 2 * prod(weight.shape) * prod(positions.shape[2:]) * positions.shape[0]
    return once * (int(mask[0]) + int(mask[1]))


class CountedStep(TorchDispatchMode):
    """Counts floating-point operations and the bytes of tensors that operations inside create.

    Operations are those of convolutions, matrix products and attention, a multiplication and an addition as two.

    Args:
        device: type of device on which tensors are counted; others, such as numbers drawn on the host, are not.

    Attributes:
        forward, backward: operations; what a backward pass computes anew counts as backward.
        now: bytes alive of the tensors created inside.
        peak: the largest ``now``.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = device
        self.forward = self.backward = 0
        self.now = self.peak = 0
        self._alive: set[int] = set()
        self._known = KnownShapes()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = self._known.call(func, args, kwargs)
        self._count(func.overloadpacket, args, kwargs, result)
        new = [storage for storage in self._storages(result) if storage._cdata not in self._alive]
        if new:
            known = {storage._cdata for storage in self._storages((args, kwargs))}
            for storage in {s._cdata: s for s in new if s._cdata not in known}.values():
                self._add(storage)
        return result

    def _storages(self, values: Any) -> list[torch.UntypedStorage]:
        tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
        return [tensor.untyped_storage() for tensor in tensors if tensor.device.type == self.device]

    def _count(self, packet: Any, args: Any, kwargs: Any, result: Any) -> None:
        if packet is aten.convolution_backward:
            operations = _convolution_backward(*args, **kwargs)
        elif packet in flop_registry:
            operations = flop_registry[packet](*args, **kwargs, out_val=result)
        else:
            return
        if torch._C._current_autograd_node() is None:
            self.forward += operations
        else:
            self.backward += operations

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
