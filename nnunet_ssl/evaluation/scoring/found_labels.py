"""The classes where no dataset.json names them: the values that the label files hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.scoring.case import Rules
from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass, Labels
from nnunet_ssl.evaluation.scoring.schedule import score_cases

BACKGROUND = 0
MOST = 256  # values; more are grey levels


def find_labels(files: Mapping[str, tuple[str, str]], reader: str, processes: int) -> tuple[Labels, str]:
    """One class per value of the references or predictions, named by it, and a note that says so.

    Args:
        files: case -> (reference, prediction); those that cannot be read are passed over, for scoring names them.
        reader: name of nnU-Net's reader class.
        processes: at most so many.

    Raises:
        SemiSupervisedError: no value beside 0, or so many that these are no labels.
    """
    results = score_cases(files, Rules(reader, None, False, 0.0), processes, score=False)
    of_references, of_predictions = (
        frozenset[int]().union(*(result.found[side] for result in results.values())) for side in (0, 1)
    )
    values = sorted((of_references | of_predictions) - {BACKGROUND})
    if len(values) > MOST:
        raise complain(f"The files hold {len(values)} different values; these are no label files.")
    if not values and any(result.found[0] for result in results.values()):
        raise complain(
            "Every voxel of every file is 0, and there is no dataset.json that names classes.",
            remedy="Give dataset.json with -djfile.",
        )
    note = (
        f"No dataset.json was found: the classes are the label values in the files ({_text(values)}), 0 the background."
    )
    if made_up := sorted(of_predictions - of_references - {BACKGROUND}):
        note += f" Only predictions hold {_text(made_up)}."
    classes = tuple(EvaluatedClass(str(value), (value,)) for value in values)
    return Labels(classes, of_references | of_predictions | {BACKGROUND}, None), note


def _text(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))
