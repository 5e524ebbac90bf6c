"""The scripts of benchmarks/protocols, importable as they import one another."""

from __future__ import annotations

import json
import locale
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers_splits import PLANS

PROTOCOLS = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols"
sys.path.insert(0, str(PROTOCOLS))


@pytest.fixture(autouse=True)
def locale_restored() -> Iterator[None]:
    """ITK's DICOM reader leaves the process in the C locale, in which later tests would read text as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


def in_name_only(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, cases: list[str]) -> Path:
    """nnU-Net's folders below ``root`` with a preprocessed 2D data set of empty files; its preprocessed folder."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / variable).mkdir()
        monkeypatch.setenv(variable, str(root / variable))
    base, raw = root / "nnUNet_preprocessed" / name, root / "nnUNet_raw" / name
    folder = base / "nnUNetPlans_2d"
    folder.mkdir(parents=True)
    plans = {**PLANS, "dataset_name": name, "configurations": {"2d": PLANS["configurations"]["2d"]}}
    (base / "nnUNetPlans.json").write_text(json.dumps(plans))
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps({"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}))
    for case in cases:
        (raw / "imagesTr" / f"{case}_0000.nii.gz").touch()
        (raw / "labelsTr" / f"{case}.nii.gz").touch()
        for suffix in (".b2nd", "_seg.b2nd", ".pkl"):
            (folder / f"{case}{suffix}").touch()
    return base
