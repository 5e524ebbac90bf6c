"""Which cases belong to one subject, from splits_ssl.json of the preprocessed dataset."""

from __future__ import annotations

from typing import NamedTuple

from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.splits import read_splits
from nnunet_ssl.errors import SemiSupervisedError


class Subjects(NamedTuple):
    """groups: case -> subject, empty where every case is a subject of its own; why_none: why it is empty."""

    groups: dict[str, str]
    why_none: str = ""


def read_subjects(dataset: str) -> Subjects:
    """The subjects of a dataset's cases.

    A report is also made on a machine that has the results only, so that files which are not there are no error.
    """
    try:
        subjects = read_splits(preprocessed_base(dataset)).groups
    except (SemiSupervisedError, OSError) as error:
        return Subjects({}, f"splits_ssl.json could not be read ({str(error).splitlines()[0].rstrip('.')})")
    return Subjects(subjects, "" if subjects else "splits_ssl.json names no subjects")
