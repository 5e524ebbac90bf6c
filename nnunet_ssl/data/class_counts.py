"""How many voxels of each class the labelled cases hold, counted once per case."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from filelock import FileLock, Timeout
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_ssl.data.folders import write_json
from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import SemiSupervisedError

COUNTS_FILE = "class_counts_ssl.json"
PATIENCE = 600  # seconds that another training run may take to count


def count_labels(preprocessed_folder: str, cases: Sequence[str]) -> dict[int, int]:
    """Voxels of each label value over whole preprocessed segmentations, as nnU-Net trains on them.

    The counts of every case are kept beside the splits, in class_counts_ssl.json, and counted again only when the
    case's file has changed. No case but those named is opened. Concurrent training runs take turns. Where that file
    cannot be written, every training run counts anew.

    Args:
        preprocessed_folder: nnU-Net's folder of a configuration.
        cases: case identifiers, all of them labelled.

    Returns:
        Label value -> number of voxels. What nnU-Net marks as outside the image (-1) counts as background.
    """
    base, configuration = os.path.split(os.path.normpath(preprocessed_folder))
    path = os.path.join(base, COUNTS_FILE)
    try:
        return _total(_counted_once(path, configuration, preprocessed_folder, cases))
    except (OSError, Timeout):  # a folder, or a file of somebody else, that cannot be written to; or a lock that stays
        return _total([_count(preprocessed_folder, case) for case in cases])


def _counted_once(path: str, configuration: str, folder: str, cases: Sequence[str]) -> list[dict[str, int]]:
    with FileLock(path + ".lock", timeout=PATIENCE):
        known = _read(path)
        counted = known.setdefault(configuration, {})
        fresh = {case: _stamp(folder, case) for case in cases}
        stale = [case for case in cases if counted.get(case, {}).get("file") != fresh[case]]
        for case in stale:
            counted[case] = {"file": fresh[case], "voxels": _count(folder, case)}
        if stale:
            write_json(path, known)
    return [counted[case]["voxels"] for case in cases]


def _total(counts: Sequence[dict[str, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for count in counts:
        for label, voxels in count.items():
            total[int(label)] = total.get(int(label), 0) + voxels
    return total


def _read(path: str) -> dict[str, dict]:
    try:
        content: dict[str, dict] = read_json(path, dict)
    except SemiSupervisedError:  # none yet, or damaged: it holds nothing that cannot be counted again
        return {}
    return content


def _stamp(folder: str, case: str) -> list[list]:
    """Names, sizes and times of the case's files: another preprocessing leaves another stamp."""
    files = sorted(entry.name for entry in os.scandir(folder) if entry.name.startswith((f"{case}.", f"{case}_seg.")))
    found = [(name, os.stat(os.path.join(folder, name))) for name in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in found]


def _count(folder: str, case: str) -> dict[str, int]:
    _, segmentation, _, _ = infer_dataset_class(folder)(folder, [case]).load_case(case)
    labels, voxels = np.unique(np.asarray(segmentation[:]), return_counts=True)
    counts: dict[str, int] = {}
    for label, number in zip(np.maximum(labels, 0), voxels, strict=True):
        counts[str(int(label))] = counts.get(str(int(label)), 0) + int(number)
    return counts
