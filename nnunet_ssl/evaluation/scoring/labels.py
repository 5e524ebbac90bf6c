"""The classes of a dataset and the values that its label files may hold."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluatedClass:
    """A label or region.

    Attributes:
        name: as in dataset.json.
        values: the values in the label files that belong to it.
    """

    name: str
    values: tuple[int, ...]

    @property
    def label(self) -> int | str:
        """1 for a label, "1+2" for a region."""
        return self.values[0] if len(self.values) == 1 else "+".join(map(str, self.values))


@dataclass(frozen=True)
class Labels:
    """What dataset.json says about the values in label files.

    Attributes:
        classes: the foreground classes in the order of dataset.json.
        known: every value that a label file may hold, background included, the ignore label not.
        ignore: value of the voxels that are left out, or None.
    """

    classes: tuple[EvaluatedClass, ...]
    known: frozenset[int]
    ignore: int | None
