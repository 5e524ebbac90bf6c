"""From a signed distance map back to a mask.

Source: DTC (Luo et al., AAAI 2021), its code.
"""

from __future__ import annotations

from torch import Tensor

from nnunet_ssl.losses.precision import at_least_float32


def distance_to_mask(distance: Tensor, steepness: float = 1500.0) -> Tensor:
    """sigmoid(-steepness distance): nearly 1 inside, 0.5 on the boundary, nearly 0 outside.

    The slope at 0 is -steepness / 4, and beyond a distance of about 0.005 there is none: only voxels at the boundary
    pull on the distance, the others on what it is compared with.

    Args:
        distance: any shape, in [-1, 1], negative inside.
        steepness: 1500, released code.

    Returns:
        The same shape in [0, 1], float32 (float64 for float64).
    """
    return (-steepness * at_least_float32(distance)).sigmoid()
