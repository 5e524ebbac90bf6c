"""One case: what its teachers say, the label that is made of it, and how sure that is."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.evaluation.scoring.masks import dice, mask_of
from nnunet_ssl.selftrain.selection.scores import agreement, certainty, confidence, lowest
from nnunet_ssl.selftrain.selection.vote import disagreement, found_by_any, majority, uncertain
from nnunet_ssl.selftrain.settings import AGREEMENT, CONFIDENCE, ENTROPY, STABILITY
from nnunet_ssl.system.hashes import hash_of_file


@dataclass(frozen=True)
class Task:
    """What one case needs; plain values, for processes.

    Attributes:
        case: its id.
        reader: name of nnU-Net's reader and writer.
        teachers: label file of each teacher.
        ensemble: label file of the ensemble, its probabilities beside it; None: majority vote.
        probabilities: .npz of the mean probabilities, or None.
        previous: label file of the round before, or None.
        truth: withheld label, for the report alone, or None.
        target: where the label goes.
        classes, channels: the classes, and the channel of each in the probabilities.
        select: score.
        ignore: value of uncertain voxels, None to keep them.
        voxel_confidence: see ``SelfTraining``.
    """

    case: str
    reader: str
    teachers: tuple[str, ...]
    ensemble: str | None
    probabilities: str | None
    previous: str | None
    truth: str | None
    target: str
    classes: tuple[EvaluatedClass, ...]
    channels: tuple[int, ...]
    select: str
    ignore: int | None
    voxel_confidence: float


@dataclass(frozen=True)
class Judged:
    """What came of it, per class where it is a dictionary.

    Attributes:
        scores: in [0, 1] or None.
        score: of the worst class.
        shown: whether any teacher finds anything.
        volumes: ml in the chosen label.
        differing: voxels on which teachers differ, as a share of those that any of them labels as foreground.
        ignored: share of all voxels that got the ignore label.
        true_dice: against the withheld label, where that was asked for.
        label_sha256: of the file that was written.
    """

    case: str
    scores: dict[str, float | None]
    score: float | None
    shown: bool
    volumes: dict[str, float]
    differing: float
    ignored: float
    label_sha256: str
    true_dice: dict[str, float | None] = field(default_factory=dict)

    @property
    def labeled(self) -> bool:
        """Whether the chosen label has any foreground."""
        return any(self.volumes.values())


def judge(task: Task) -> Judged:
    """Read, vote, score, and write the label in one step."""
    reader = recursive_find_reader_writer_by_name(task.reader)()
    read = [reader.read_seg(file) for file in task.teachers]
    maps, properties = [values[0].astype(np.int16) for values, _ in read], read[0][1]
    values = None if task.probabilities is None else np.load(task.probabilities)["probabilities"]
    chosen = majority(maps) if task.ensemble is None else reader.read_seg(task.ensemble)[0][0].astype(np.int16)
    scores = _scores(task, maps, chosen, values, reader)
    found, differ = found_by_any(maps, (kind.values for kind in task.classes)), disagreement(maps)
    truth = None if task.truth is None else reader.read_seg(task.truth)[0][0]
    written = chosen.copy()
    if task.ignore is not None:
        written[uncertain(maps, values, task.voxel_confidence)] = task.ignore
    write_label(reader, written, properties, task.target)
    milliliters = float(np.prod(properties["spacing"])) / 1000
    masks = {kind.name: mask_of(chosen, kind.values) for kind in task.classes}
    return Judged(
        task.case,
        scores,
        lowest([*scores.values()]),
        bool(found.any()),
        {name: float(np.count_nonzero(mask) * milliliters) for name, mask in masks.items()},
        int(np.count_nonzero(differ)) / max(1, int(np.count_nonzero(found))),
        float(np.count_nonzero(written == task.ignore) / written.size) if task.ignore is not None else 0.0,
        hash_of_file(task.target),
        {} if truth is None else {k.name: dice(masks[k.name], mask_of(truth, k.values)) for k in task.classes},
    )


def _scores(
    task: Task, maps: list[np.ndarray], chosen: np.ndarray, probabilities: np.ndarray | None, reader: Any
) -> dict[str, float | None]:
    if task.select == AGREEMENT:
        return {kind.name: agreement(maps, kind.values) for kind in task.classes}
    if task.select in (CONFIDENCE, ENTROPY):
        assert probabilities is not None
        return _of_probabilities(task, maps, chosen, probabilities)
    if task.select == STABILITY and task.previous is not None:
        before = reader.read_seg(task.previous)[0][0]
        known = np.ones(before.shape, dtype=bool) if task.ignore is None else before != task.ignore
        return {
            kind.name: dice(mask_of(chosen, kind.values) & known, mask_of(before, kind.values)) for kind in task.classes
        }
    return {kind.name: None for kind in task.classes}


def _of_probabilities(
    task: Task, maps: list[np.ndarray], chosen: np.ndarray, probabilities: np.ndarray
) -> dict[str, float | None]:
    """A class that a teacher finds and the label lacks has 0, as it has for agreement."""
    scores: dict[str, float | None] = {}
    for kind, channel in zip(task.classes, task.channels, strict=True):
        mask = mask_of(chosen, kind.values)
        score = certainty(probabilities, mask) if task.select == ENTROPY else confidence(probabilities[channel], mask)
        missed = score is None and found_by_any(maps, [kind.values]).any()
        scores[kind.name] = 0.0 if missed else score
    return scores


def write_label(reader: Any, labels: np.ndarray, properties: dict[str, Any], path: str) -> None:
    """By nnU-Net's writer, in a hidden folder first: writers go by the ending, and some write a second file."""
    folder = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex[:12]}.tmp")
    os.makedirs(folder)
    reader.write_seg(
        labels.astype(np.uint8 if labels.max() < 256 else np.uint16),
        os.path.join(folder, os.path.basename(path)),
        properties,
    )
    for name in sorted(os.listdir(folder)):
        os.replace(os.path.join(folder, name), os.path.join(os.path.dirname(path), name))
    os.rmdir(folder)


def volumes_of(file: str, reader: str, classes: tuple[EvaluatedClass, ...]) -> dict[str, float]:
    """Class -> volume in ml in a label file."""
    values, properties = recursive_find_reader_writer_by_name(reader)().read_seg(file)
    milliliters = float(np.prod(properties["spacing"])) / 1000
    return {kind.name: float(np.count_nonzero(mask_of(values, kind.values)) * milliliters) for kind in classes}
