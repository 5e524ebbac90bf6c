"""Which cases belong to one subject, from splits_ssl.json of the preprocessed dataset."""

from __future__ import annotations

from nnunet_ssl.data.folders import preprocessed_base
from nnunet_ssl.data.splits import read_splits
from nnunet_ssl.errors import SemiSupervisedError


def read_subjects(dataset: str) -> tuple[dict[str, str], str]:
    """case -> subject, empty where the cases are their own subjects, and why it is empty.

    A report is also made on a machine that has the results only, so that files which are not there are no error.
    """
    try:
        subjects = read_splits(preprocessed_base(dataset)).groups
    except (SemiSupervisedError, OSError) as error:
        return {}, f"splits_ssl.json could not be read ({str(error).splitlines()[0]})"
    return subjects, "" if subjects else "splits_ssl.json names no subjects"
