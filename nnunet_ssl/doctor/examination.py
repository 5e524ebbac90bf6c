"""The whole examination, in the process that has looked the trainers up: one import of PyTorch and nnU-Net serves both.

Imports neither before it is known that they can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunet_ssl.doctor.environment import environment_findings
from nnunet_ssl.doctor.lookup import ask
from nnunet_ssl.doctor.preflight import number_findings, preflight_findings
from nnunet_ssl.doctor.report import Section
from nnunet_ssl.trainers import TRAINERS


def examine_in_child(dataset: str | None, plans: str, configurations: Sequence[str] | None) -> list[Section]:
    """See :func:`examine`, with the look-up in a fresh process, which then does the rest."""
    chosen: dict[str, Any] = {"dataset": dataset, "plans": plans, "configurations": configurations}
    if number_findings():  # nnU-Net cannot be imported there either
        return examine(**chosen, lookup="")
    try:
        answer = ask(list(TRAINERS), chosen)
    except RuntimeError as error:
        return examine(**chosen, lookup=str(error))
    if "sections" in answer:
        return [Section.from_json(section) for section in answer["sections"]]
    return examine(**chosen, lookup=answer["trainers"])  # this package is importable here only, or that process died


def examine(
    dataset: str | None, plans: str, configurations: Sequence[str] | None, lookup: dict[str, dict[str, Any]] | str
) -> list[Section]:
    """Installation, and the dataset if there is one.

    Args:
        dataset: name or id, or None.
        plans: name of the plans to look at.
        configurations: only these; None: all.
        lookup: nnU-Net's answers, or why there are none.
    """
    obstacles = preflight_findings()
    if obstacles:
        return [
            Section("Installation (nothing else can be examined before this is put right)", obstacles),
            Section("Environment", environment_findings()),
        ]
    from nnunet_ssl.doctor.examine import examine_dataset, examine_installation

    sections = examine_installation(lookup)
    return sections if dataset is None else [*sections, *examine_dataset(dataset, plans, configurations)]
