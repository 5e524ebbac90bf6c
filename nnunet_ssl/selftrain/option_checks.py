"""Options that do not fit together, or have impossible values; no dataset is looked at."""

from __future__ import annotations

from nnunet_ssl.selftrain.models import kept_epochs_problem
from nnunet_ssl.selftrain.settings import AGREEMENT, CHECKPOINTS, FOLDS, PREVIOUS, STABILITY, SelfTraining


def option_problems(settings: SelfTraining) -> list[str]:
    """One line each."""
    found = []
    numbers = {
        "--rounds": (settings.rounds, 0, None),
        "--n-teachers": (settings.n_teachers, 1, None),
        "--min-cases": (settings.min_cases, 1, None),
        "--threshold": (settings.threshold, 0, 1),
        "--voxel-confidence": (settings.voxel_confidence, 0, 1),
        "-f": (settings.fold, 0, None),
    }
    for option, (value, low, high) in numbers.items():
        if value < low or (high is not None and value > high):
            found.append(f"{option} {value:g}: {f'at least {low}' if high is None else f'between {low} and {high}'}")
    if not 0 <= settings.labeled_share < 1:
        found.append(f"--labeled-share {settings.labeled_share:g}: at least 0 and below 1")
    if settings.keep_fraction is not None and not 0 < settings.keep_fraction <= 1:
        found.append(f"--keep-fraction {settings.keep_fraction:g}: above 0 and at most 1")
    if settings.rounds > 0:
        found += _of_teachers(settings)
    if settings.start == PREVIOUS and settings.student_plans != settings.plans:
        found.append("--from previous: weights of a network of -p do not fit one of --student-plans -> --from scratch")
    return found


def _of_teachers(settings: SelfTraining) -> list[str]:
    found = []
    if settings.select == AGREEMENT and settings.n_teachers < 2:
        found.append("--select agreement compares teachers with each other -> at least --n-teachers 2")
    if settings.select == STABILITY and settings.rounds < 2:
        found.append("--select stability compares two rounds -> at least --rounds 2")
    if settings.teachers == FOLDS and settings.fold >= settings.n_teachers:
        found.append(f"-f {settings.fold} is none of the {settings.n_teachers} folds that teach -> more --n-teachers")
    if settings.teachers == CHECKPOINTS and (problem := kept_epochs_problem(settings)):
        found.append(problem)
    return found
