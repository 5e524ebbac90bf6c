"""The terms of every trainer's first five steps are those on record: what restructures code changes no loss.

Where a change of behaviour is meant: ``python -m pytest -n 0 tests/trainers/test_golden.py --record`` writes the file
anew, and its diff shows which terms changed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.trainers.registered import GOLDEN, KINDS, NAMES, REFUSED, make_registered, unguarded
from tests.trainers.stepping import processor, steps, tolerance

FILE = Path(__file__).with_name("golden.json")
STEPS = 5
TRAINING = {"num_epochs": 3, "num_iterations_per_epoch": 2, "seed": 1}
"""No optimiser: each trainer's own."""


def run(ready_dataset, name: str, kind: str) -> list[dict[str, float]]:
    recipe, configuration = KINDS[kind]
    trainer = make_registered(
        ready_dataset(**recipe), name, configuration, split="n2", training=TRAINING, hyperparameters=unguarded(name)
    )
    return list(steps(trainer, STEPS))


def write(golden: dict) -> None:
    """One line per step, for the sake of diffs."""
    text = json.dumps(golden, separators=(",\n", ": "))
    FILE.write_text(re.sub(r'(?<=[^}]),\n(?="(total|loss|weight))', ", ", text) + "\n")


@pytest.mark.parametrize("kind", GOLDEN)
@pytest.mark.parametrize("name", NAMES)
def test_terms_of_the_first_five_steps(ready_dataset, record, name, kind):
    if kind in REFUSED.get(name, {}):
        pytest.skip(f"{name} refuses {kind}")
    found = run(ready_dataset, name, kind)
    golden = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if record:
        golden.setdefault("cpu", processor())
        own = {} if golden["cpu"] == processor() else {"cpu": processor()}
        golden[name] = {k: v for k, v in golden.get(name, {}).items() if k != "cpu"} | own | {kind: found}
        write(golden)
        return
    expected, near = golden[name][kind], tolerance(golden[name].get("cpu", golden["cpu"]))
    terms = [{key for key in row if not key.startswith("weight_")} for row in (*found, *expected)]
    assert terms[:STEPS] == terms[STEPS:]
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        assert {k: mine.get(k) for k in theirs} == pytest.approx(theirs, **near), f"step {step}"
