"""The terms of a loss: a name, a value and a weight, each written once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Terms(dict[str, Tensor]):
    """What ``losses`` returns: weighted scalars by name, with the weights on record for the log.

        terms = Terms(supervised=self.supervised_loss(outputs, labeled.target))
        terms.add("consistency", consistency, weight)

    A plain dictionary of weighted scalars does as well; its weights are not logged.
    """

    def __init__(self, *terms: Any, **named: Tensor) -> None:
        super().__init__(*terms, **named)
        self.weights: dict[str, float | Tensor] = dict(getattr(terms[0], "weights", {})) if terms else {}

    def add(self, name: str, value: Tensor, weight: float | Tensor) -> None:
        """weight * value under this name, with the weight on record.

        Raises:
            ValueError: there is a term of this name.
        """
        if name in self:
            raise ValueError(f'there is a term "{name}" already')
        self[name] = weight * value
        self.weights[name] = weight

    def __or__(self, other: Mapping[str, Tensor]) -> Terms:  # type: ignore[override]
        both = Terms(self)
        both |= other
        return both

    def __ior__(self, other: Mapping[str, Tensor]) -> Terms:  # type: ignore[override]
        self.update(other)
        self.weights |= getattr(other, "weights", {})
        return self
