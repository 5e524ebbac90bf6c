"""What `nnunet_ssl predict-as-paper` leaves beside its predictions, so that `nnunet_ssl evaluate` can say it."""

from __future__ import annotations

from typing import Any

RECORD = "prediction.json"
CHECKPOINTS = {"final": "checkpoint_final.pth", "best": "checkpoint_best.pth"}


def describe(record: dict[str, Any]) -> str:
    """prediction.json in a sentence; the best checkpoint is marked."""
    text = (
        f"{record['checkpoint']}, windows every {' x '.join(map(str, record['stride']))} voxels, {record['averaged']} "
        f"averaged with {record['weights']} weights"
    )
    best = " (chosen on the validation cases, not the last one)"
    return text + (best if record["checkpoint"] == CHECKPOINTS["best"] else "")
