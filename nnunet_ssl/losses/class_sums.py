"""Sums over the voxels of each class, without a one-hot map of the batch."""

from __future__ import annotations

import math

from torch import Tensor


def sum_by_class(values: Tensor, label: Tensor, classes: int) -> Tensor:
    """Sums (K,) of values (B, 1, *S), with their gradient, over the voxels that a label map (B, 1, *S) gives a class.

    Args:
        label: int64, 0 to K - 1.
        classes: K.
    """
    # one bin per class and column, then the sum of the columns: adding millions of values to one float loses digits
    columns = math.prod(values.shape[3:])
    bins = values.new_zeros(classes, columns)
    return bins.scatter_add(0, label.reshape(-1, columns), values.reshape(-1, columns)).sum(1)
