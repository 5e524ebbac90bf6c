"""What to run: the commands that train the recommended trainer, and the memory that they need."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.folders import load_plans, preprocessed_base
from nnunet_ssl.discovery import VARIABLE
from nnunet_ssl.doctor.memory import fits, gib_of_step, room
from nnunet_ssl.recommendation.cpu_plans import BATCH, TRAINING
from nnunet_ssl.recommendation.facts import Facts
from nnunet_ssl.trainers import CONTROL

NNUNET = "nnUNetTrainer"


@dataclass(frozen=True)
class Run:
    """A training that was asked about.

    Attributes:
        facts: of the dataset.
        trainer: recommended for it; ``None``: nnU-Net itself.
        plans: nnU-Net's -p.
        split: name of a split that the plans are to carry; ``None``: they stay as they are.
    """

    facts: Facts
    trainer: str | None
    plans: str
    split: str | None

    @property
    def name(self) -> str:
        """The trainer's; nnU-Net's own knows no split and no length for a CPU, the control does."""
        settings = self.split is not None or self.facts.gpu is None
        return self.trainer or (CONTROL if settings and CONTROL not in self.facts.unsupported else NNUNET)

    @property
    def for_cpu(self) -> bool:
        """Whether a copy of the plans with a small network is needed."""
        return self.facts.gpu is None and self.facts.cpu_patch is not None and self.name != NNUNET


def memory_of_step(run: Run) -> float | None:
    """GiB of a training step with these plans; ``None`` for nnU-Net's own trainer, whose plans fit by its own rules."""
    if run.trainer is None:
        return None
    base = preprocessed_base(run.facts.name)
    plans, dataset_json = load_plans(base, run.plans), read_dataset_json(os.path.join(base, "dataset.json"))
    return gib_of_step(run.trainer, run.facts.configuration, json.dumps(plans), json.dumps(dataset_json))


def memory_line(run: Run, need: float) -> str:
    """What a step needs, beside what there is."""
    there = run.facts.gpu
    if there is None:
        return f"Memory: a training step needs {need:.1f} GiB on a GPU, and CUDA about 1 GiB beside it."
    line = f"Memory: a training step needs {need:.1f} GiB of the {there:.3g} GiB of your GPU"
    return f"{line}." if fits(need, there) else f"{line}, which with CUDA's own 1 GiB is too much; smaller plans fit."


def commands(run: Run, need: float | None) -> Iterator[str]:
    """From the shell's variable to the training, each as it is to be typed.

    Args:
        run: what to train.
        need: GiB of a step, see :func:`memory_of_step`.
    """
    facts, plans = run.facts, run.plans
    if run.name != NNUNET:
        yield f"export {VARIABLE}=$(nnunet_ssl path)"
    smaller = need is not None and facts.gpu is not None and not fits(need, facts.gpu)
    if run.split is not None or smaller or run.for_cpu:
        plans, words = copy_of(run, smaller)
        yield words
    if facts.raw and run.trainer is not None:
        yield f"nnunet_ssl preprocess -d {facts.number} -c {facts.configuration}{_option(plans)}"
    device = " -device cpu" if facts.gpu is None else ""
    yield f"nnUNetv2_train {facts.number} {facts.configuration} {facts.fold} -tr {run.name}{_option(plans)}{device}"


def copy_of(run: Run, smaller: bool) -> tuple[str, str]:
    """Name of a copy of the plans, with the split, for the GPU's memory or for a CPU, and the command that writes it.

    Args:
        run: what to train.
        smaller: whether a step needs more memory than the GPU has.
    """
    facts, name = run.facts, run.plans if run.split is None else f"{run.plans}_{run.split}"
    words = f"nnunet_ssl plans -d {facts.number}{_option(run.plans)}"
    if run.split is not None:
        words += f" --split {run.split}"
    if run.for_cpu and facts.cpu_patch is not None:
        name += "_cpu"
        patch = " ".join(map(str, facts.cpu_patch))
        words += f" -c {facts.configuration} --patch {patch} --batch {BATCH[facts.dimensions]} --name {name}"
        return name, f"{words} --training {TRAINING}"
    if not smaller or facts.gpu is None:
        return name, words
    name += "_smaller"
    fit = f"--fit {room(facts.gpu):.3g} -tr {run.name}"
    return name, f"{words} -c {facts.configuration} {fit} --name {name}"


def _option(plans: str) -> str:
    return "" if plans == "nnUNetPlans" else f" -p {plans}"
