"""Whether a training step of the trainers in the plans fits the GPU of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch

from nnunet_ssl.doctor.dataset import Dataset
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding
from nnunet_ssl.errors import SemiSupervisedError, one_line
from nnunet_ssl.planning.fit import GIB
from nnunet_ssl.planning.rehearsal import rehearse
from nnunet_ssl.trainers import CONTROL
from nnunet_ssl.trainers.lookup import find_any_trainer
from nnunet_ssl.training.settings import BLOCK

BESIDE = 1.0  # GiB that CUDA and cuDNN take beside the tensors of a step


def memory_findings(dataset: Dataset, labeled: Mapping[str, Sequence[str]]) -> list[Finding]:
    """A line per preprocessed configuration: the memory of a step of the control, and of the trainers in the plans.

    Args:
        dataset: what is examined.
        labeled: configuration -> preprocessed labelled cases.
    """
    block = dataset.plans.get(BLOCK, {})
    names = [*dict.fromkeys([CONTROL, *block.get("hyperparameters", {})])]
    return [_finding(dataset, name, names) for name, cases in labeled.items() if cases]


def _finding(dataset: Dataset, configuration: str, names: Sequence[str]) -> Finding:
    item, needs, unsupported = f"{configuration} memory", {}, []
    for name in names:
        try:
            needs[name] = gib_of_step(name, configuration, json.dumps(dataset.plans), json.dumps(dataset.dataset_json))
        except (NotImplementedError, SemiSupervisedError) as error:
            unsupported.append(f"{name}: {one_line(error)}")
    text = "\n".join([*(f"a training step of {name} needs {gib:.1f} GiB" for name, gib in needs.items()), *unsupported])
    if unsupported:
        return Finding(NOTE, item, text)
    there = gib_of_gpu()
    if there is not None and not fits(max(needs.values()), there):
        words = f"nnunet_ssl plans -d {dataset.number} -p {dataset.plans_identifier} -c {configuration} --name smaller"
        remedy = f"{words} --fit {room(there):.3g} -tr {' '.join(needs)}"
        return Finding(WRONG, item, f"{text}\nThe GPU has {there:.3g} GiB", remedy)
    return Finding(OK, item, text)


def fits(need: float, there: float) -> bool:
    """Whether a step that needs so many GiB fits a GPU of that size."""
    return need + BESIDE <= there


def room(there: float) -> float:
    """GiB that the tensors of a step may take on a GPU of that size."""
    return there - BESIDE if there > 2 * BESIDE else there / 2


@lru_cache(maxsize=64)
def gib_of_step(trainer: str, configuration: str, plans: str, dataset_json: str) -> float:
    """Of what JSON describes, so that asking again costs nothing.

    Raises:
        NotImplementedError, SemiSupervisedError: as the trainer, for plans that it does not support.
    """
    asked = json.loads(plans), configuration, json.loads(dataset_json)
    return rehearse(find_any_trainer(trainer), *asked).peak / GIB


def gib_of_gpu() -> float | None:
    """Memory of the first GPU; ``None``: there is none."""
    if not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(0).total_memory / GIB)
