"""Names, order and meaning of what the evaluation computes. Everything that shows a number shows its definition."""

from __future__ import annotations

OVERLAPS = ("dice", "jaccard", "nsd")  # between 0 and 1, higher is better
DISTANCES = ("hd95", "asd", "assd")  # lower is better
METRICS = ("dice", "jaccard", "hd95", "asd", "assd", "nsd")
STATUSES = ("ok", "missed", "false_positive", "true_negative")
COLUMNS = ("case", "class", "label", "status", *METRICS, "reference_voxels", "predicted_voxels")
UNITS = ("mm", "voxel")
TITLES = {"dice": "Dice", "jaccard": "Jaccard", "hd95": "HD95", "asd": "ASD", "assd": "ASSD", "nsd": "NSD"}


def definitions(unit: str, tolerance: float) -> dict[str, str]:
    """What each number is, in one sentence each.

    Args:
        unit: "mm" or "voxel", of the distances and of the tolerance.
        tolerance: of the NSD, in this unit.
    """
    units = {"mm": "mm, by the spacing in the header of the reference", "voxel": "voxels, as if the spacing were 1"}
    return {
        "dice": "2 |P and R| / (|P| + |R|) of prediction P and reference R, between 0 and 1",
        "jaccard": "|P and R| / |P or R|, between 0 and 1",
        "hd95": "the larger of the two directed 95th percentiles of the distances between the surfaces",
        "asd": "mean distance from the surface of the prediction to that of the reference (one direction)",
        "assd": "mean over the distances of both directions, pooled",
        "nsd": f"share of both surfaces that is at most {tolerance:g} {unit} from the other one, between 0 and 1",
        "surface": "voxels of a mask with a neighbour across a face that is outside of it; beyond the image is outside",
        "unit": f"distances in {units[unit]}; on the original grid",
        "missed": "in the reference, not predicted: overlaps and NSD 0, distances the diagonal of the image",
        "false_positive": "predicted, not in the reference: overlaps and NSD 0, distances the diagonal of the image",
        "true_negative": "neither predicted nor in the reference: no values, not in any mean",
        "mean": "over all cases with values, missed and false ones included; over classes: mean of the classes' means",
        "std": "sample standard deviation over the same cases (n - 1)",
        "ok": "mean over the cases in which both masks have voxels",
    }
