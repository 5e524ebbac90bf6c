"""The scripts of benchmarks/protocols, importable as they import one another."""

from __future__ import annotations

import sys
from pathlib import Path

PROTOCOLS = Path(__file__).resolve().parents[2] / "benchmarks" / "protocols"
sys.path.insert(0, str(PROTOCOLS))
