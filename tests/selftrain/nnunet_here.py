"""nnU-Net's own commands for data, in this process and with threads in place of its pools."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest


def run_here(command: Sequence[str]) -> None:
    """One of nnU-Net's console scripts."""
    from nnunetv2.experiment_planning import plan_and_preprocess_entrypoints as entry_points
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plans_for_pretraining import move_plans_between_datasets as move_plans

    functions = {
        "nnUNetv2_extract_fingerprint": entry_points.extract_fingerprint_entry,
        "nnUNetv2_move_plans_between_datasets": move_plans.entry_point_move_plans_between_datasets,
        "nnUNetv2_preprocess": entry_points.preprocess_entry,
    }
    few = property(lambda self: 1000, lambda self, value: None)  # nnU-Net draws 10^8 voxels, however few there are
    with threads() as patch:
        patch.setattr(DatasetFingerprintExtractor, "num_foreground_voxels_for_intensitystats", few, raising=False)
        patch.setattr(sys, "argv", list(command))
        functions[command[0]]()


def threads():
    """A context in which nnU-Net's pools are threads."""
    context = pytest.MonkeyPatch.context()

    class Patched:
        def __enter__(self):
            patch = context.__enter__()
            patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
            return patch

        def __exit__(self, *error):
            return context.__exit__(*error)

    return Patched()
