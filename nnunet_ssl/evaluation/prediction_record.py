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
    return text + (" (chosen on the validation cases, not the last one)" if is_best(record) else "")


def is_best(record: dict[str, Any]) -> bool:
    """Whether the checkpoint was chosen on the validation cases."""
    return record["checkpoint"] == CHECKPOINTS["best"]
