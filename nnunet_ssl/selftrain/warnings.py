"""What has to stand beside every number of a run."""

from __future__ import annotations

from nnunet_ssl.selftrain.settings import FOLDS, SelfTraining

LEAKAGE = (
    "Optimistic: with teachers of several folds the validation cases of a fold have trained the other teachers, whose "
    "pseudo-labels reach the student. Judge on annotated cases that no training has seen."
)
TRANSDUCTIVE = "Transductive: test images may be among those without label, as --transductive allows."


def warnings(settings: SelfTraining) -> list[str]:
    """Sentences; none where nothing leaks."""
    found = [LEAKAGE] if settings.teachers == FOLDS and settings.rounds > 0 else []
    return found + ([TRANSDUCTIVE] if settings.transductive else [])
