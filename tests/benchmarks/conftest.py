"""The scripts of benchmarks/protocols, importable as they import one another."""

from __future__ import annotations

import locale
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROTOCOLS = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols"
sys.path.insert(0, str(PROTOCOLS))


@pytest.fixture(autouse=True)
def locale_restored() -> Iterator[None]:
    """ITK's DICOM reader leaves the process in the C locale, in which later tests would read text as ASCII."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)
