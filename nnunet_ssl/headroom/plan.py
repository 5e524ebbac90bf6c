"""Which trainings the learning curve needs, as a benchmark of the control alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import load_plans, preprocessed_base
from nnunet_ssl.data.split_making import Written, create_splits
from nnunet_ssl.data.split_requests import name_of_fraction
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.benchmark.manifest import Experiment, Manifest
from nnunet_ssl.evaluation.benchmark.start import stored_manifest
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.planning.small_network import SmallNetwork
from nnunet_ssl.recommendation.facts import unlabeled_images
from nnunet_ssl.trainers import CONTROL
from nnunet_ssl.training.settings import BLOCK, CHANGED

FRACTIONS = (0.25, 0.5, 1.0)
TRAINING = {"num_epochs": 8, "optimizer": "adamw", "initial_lr": 0.003}
MOST_FOLDS = 3


@dataclass(frozen=True)
class Question:
    """What to find out.

    Attributes:
        dataset: number or name.
        configuration: nnU-Net's -c.
        plans: nnU-Net's -p; reduced unless they are a reduced copy already.
        fractions: of the training cases of a fold.
        folds: None: the first three, or as many as there are.
        seeds: of the trainings.
        number_of_folds: write a splits_final.json with so many, see ``create_splits``; None: those there are.
        groups: file with the subject of every case, or None.
        training: settings that replace those of TRAINING.
        device: nnU-Net's -device.
    """

    dataset: str
    configuration: str
    plans: str = "nnUNetPlans"
    fractions: Sequence[float] = FRACTIONS
    folds: Sequence[int] | None = None
    seeds: Sequence[int] = (0,)
    number_of_folds: int | None = None
    groups: str | None = None
    training: dict[str, Any] = field(default_factory=dict)
    device: str = "cuda"


def planned(question: Question) -> Manifest:
    """Write the reduced plans and the splits, which are this command's own, and say what is to be trained.

    Raises:
        SemiSupervisedError: plans or splits that cannot be made, or fractions that are the same number of cases.
    """
    base = preprocessed_base(question.dataset)
    plans = _reduced(base, question)
    fractions = sorted(set(question.fractions))
    written = create_splits(
        question.dataset,
        plans_identifier=plans,
        fractions=fractions,
        names=[f"headroom_{name_of_fraction(fraction)}" for fraction in fractions],
        groups_file=question.groups,
        number_of_folds=question.number_of_folds,
        overwrite=True,
    )
    there = range(len(written.folds))
    folds = tuple(there[:MOST_FOLDS] if question.folds is None else question.folds)
    experiment = Experiment(
        dataset=os.path.basename(base),
        configurations=(question.configuration,),
        trainers=(CONTROL,),
        splits=_distinct(written, folds),
        plans=plans,
        folds=folds,
        seeds=tuple(question.seeds),
        training={**TRAINING, **question.training},
    )
    return Manifest((experiment,), question.device)


def count_images(experiment: Experiment) -> int:
    """Number of images without labels that the dataset has beside the cases of the curve."""
    base = preprocessed_base(experiment.dataset)
    configuration = PlansManager(load_plans(base, experiment.plans)).get_configuration(experiment.configurations[0])
    ending = read_dataset_json(os.path.join(base, "dataset.json"))["file_ending"]
    done, raw = unlabeled_images(base, os.path.join(base, configuration.data_identifier), ending)
    return len(done | raw)


def stored(output: str) -> Manifest:
    """What was begun in a folder.

    Raises:
        SemiSupervisedError: nothing, or another kind of benchmark.
    """
    manifest = stored_manifest(output)
    first, *others = manifest.experiments
    if others or first.trainers != (CONTROL,) or len(first.configurations) > 1 or len(first.splits) < 2:
        raise complain(
            f"{output} holds another benchmark than one of the control on several fractions of the labels.",
            remedy="Give another folder with -o, and -d and -c with it.",
        )
    return manifest


def _reduced(base: str, question: Question) -> str:
    """Name of the plans with a small network."""
    name, configuration = question.plans, question.configuration
    if configuration in load_plans(base, name).get(BLOCK, {}).get(CHANGED, {}):
        return name
    copy = f"{name}_headroom_{configuration}"
    write_plans_copy(
        question.dataset, plans_identifier=name, name=copy, network=SmallNetwork(configuration), overwrite=True
    )
    return copy


def _distinct(written: Written, folds: Sequence[int]) -> tuple[str, ...]:
    """Names of the splits; of those with the same labelled cases in these folds the first."""
    names: dict[tuple[tuple[str, ...], ...], str] = {}
    for name, split in written.new.items():
        cases = tuple(tuple(split.folds[fold].labeled) for fold in folds if fold < len(split.folds))
        names.setdefault(cases, name)
    if len(names) < 2:
        raise complain(
            "The fractions lead to the same labelled cases in every fold: there is no curve to draw.",
            remedy="Give fractions that lie further apart, such as --fractions 0.25 0.5 1.",
        )
    return tuple(names.values())
