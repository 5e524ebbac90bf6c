"""Results of operations on tensors without data, computed once per kind of input: PyTorch takes a millisecond each."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

IN_PLACE = "in place"


class KnownShapes:
    """Calls operations; of one that was called before with inputs of these shapes and types, makes the result anew.

    Views, and what writes to a tensor and more than a value to each element, are left to PyTorch.
    """

    def __init__(self) -> None:
        self._results: dict[Hashable, Any] = {}

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """func(*args, **kwargs), for an operation as a dispatch mode receives it."""
        if not _depends_on_shapes_alone(func):
            return func(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        if not tensors or not all(tensor.is_meta for tensor in tensors):
            return func(*args, **kwargs)
        key = (func, structure, *(_key(leaf) for leaf in leaves))
        if key not in self._results:
            result = func(*args, **kwargs)
            self._results[key] = IN_PLACE if func._schema.is_mutable else _recipe(result)
            return result
        known = self._results[key]
        return args[0] if known is IN_PLACE else _make(known)


@cache
def _depends_on_shapes_alone(func: Any) -> bool:
    schema = func._schema
    if schema.is_mutable:
        in_place = schema.name.endswith("_") and len(schema.returns) == 1
        return in_place and torch.Tag.pointwise in func.tags
    return all(r.alias_info is None and str(r.type) in ("Tensor", "List[Tensor]") for r in schema.returns)


def _key(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype
    return type(leaf), leaf


def _recipe(result: Any) -> Any:
    leaves, structure = tree_flatten(result)
    made = [leaf if leaf is None else (leaf.shape, leaf.stride(), leaf.dtype) for leaf in leaves]
    return made, structure


def _make(recipe: Any) -> Any:
    made, structure = recipe
    tensors = [None if m is None else torch.empty_strided(*m[:2], dtype=m[2], device="meta") for m in made]
    return tree_unflatten(tensors, structure)
