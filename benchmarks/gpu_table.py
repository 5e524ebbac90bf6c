"""The table of what benchmarks/gpu.sh measured.

python benchmarks/gpu_table.py OUT
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("trainer", "s per step", "time", "compiled, s per step", "time", "memory, MiB", "memory")
LOADER_COLUMNS = ("trainer", "patches per s", "step waits, s", "share of the step")


def main(words: Sequence[str] | None = None) -> int:
    (folder,) = map(Path, sys.argv[1:] if words is None else words)
    measured = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    numbers = sorted({name.split("_")[1] for name in measured}, key=int)
    lines = []
    for number in numbers:
        lines += steps_of(measured, number) + loaders_of(measured.get(f"loaders_{number}"))
    lines += tests_of(folder / "tests.log")
    problems = folder / "problems.txt"
    lines += [f"- {line}" for line in problems.read_text().splitlines()] if problems.exists() else []
    print("\n".join(lines).strip())
    return 0


def steps_of(measured: dict[str, Any], number: str) -> list[str]:
    """A dataset's trainers, eager beside compiled; ratios are to nnU-Net's own step in the same run."""
    eager, compiled = (measured.get(f"{kind}_{number}", {"rows": []}) for kind in ("eager", "compiled"))
    some = eager if eager["rows"] else compiled
    if not some["rows"]:
        return []
    rows = {row["trainer"]: [*_step(row), "", "", *_memory(row)] for row in eager["rows"]}
    for row in compiled["rows"]:
        rows.setdefault(row["trainer"], ["", "", "", "", *_memory(row)])[2:4] = _step(row)
    failed = {name: reason for part in (eager, compiled) for name, reason in part.get("failed", {}).items()}
    table = _table(COLUMNS, [[f"`{name}`", *cells] for name, cells in rows.items()])
    named = [f"- `{name}`: {' '.join(reason.split())}" for name, reason in failed.items()]
    return [
        f"Dataset {number}, {some['what']}; {some['device'].rsplit(', compile', 1)[0]}:",
        "",
        *table,
        "",
        *named,
        "",
    ]


def _step(row: dict[str, Any]) -> list[str]:
    return [f"{row['step_s']:.4f}", f"{row['time_ratio']:.2f}"]


def _memory(row: dict[str, Any]) -> list[str]:
    return [f"{row['memory_mib']:.0f}", f"{row['memory_ratio']:.2f}"]


def loaders_of(result: dict[str, Any] | None) -> list[str]:
    """What the loaders deliver when nothing else runs, and what a step waits for them."""
    if result is None:
        return []
    rows = [
        [f"`{r['trainer']}`", f"{r['patches_per_s']:.0f}", f"{r['loader_s']:.4f}", f"{100 * r['starved']:.0f} %"]
        for r in result["rows"]
    ]
    return [f"{result['what']}:".capitalize(), "", *_table(LOADER_COLUMNS, rows), ""]


def tests_of(log: Path) -> list[str]:
    """The last line of pytest that counts."""
    found = re.findall(r"^.*\b\d+ (?:passed|failed|skipped).*$", log.read_text(), re.MULTILINE) if log.exists() else []
    return [f"Tests marked gpu: {found[-1].strip('= ')}.", ""] if found else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    sys.exit(main())
