"""docs/reproduce: every row's trainer gets the cases of its protocol in every fold that the row names, and no others.

The data sets are names alone: no file is read and nothing trains.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import apply
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from protocol_file import dataset_units, read_protocol, resolve

from nnunet_ssl.cli import build_parser
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.settings import Settings, TrainingSettings
from tests.benchmarks.conftest import PROTOCOLS, in_name_only
from tests.helpers_splits import PLANS

sys.path.insert(0, str(PROTOCOLS.parent))
import reproduce

ROOT = PROTOCOLS.parents[1]
PAGES = {path.stem: reproduce.read_page(path) for path in (ROOT / "docs" / "reproduce").glob("[a-z]*.md")}
BLOCKS = sorted({(slug, row.block) for slug, page in PAGES.items() for row in page.rows if row.runs})


def words_of_plans(command: str) -> Any:
    words = shlex.split(command)[1:]
    return build_parser(words[0]).parse_args(words)


def protocol_of(slug: str, block: str) -> tuple[list[str], str]:
    """The page's apply.py for the data set on which the commands of a block train, and that number."""
    (line,) = (line for line in PAGES[slug].blocks[block] if line.startswith("nnUNetv2_train"))
    number = line.split()[1]
    (words,) = (
        shlex.split(c) for c in PAGES[slug].preparation if "apply.py" in c and f" -d {number} " in f"{c} "
    )  # fmt: skip
    return words, number


def cases_of(protocol: dict[str, Any], unit: str) -> list[str]:
    """Names of the cases of a unit, by the protocol's pattern."""
    before, after = re.fullmatch(r"([^(]*)\(.*\)([^)]*)", protocol["case_names"]["pattern"]).groups()  # type: ignore[union-attr]
    name = f"{before}{unit}{after}"
    return [name.replace("\\d{2}", f"{n:02d}") for n in range(1, protocol["case_names"].get("cases_per_unit", 1) + 1)]


def cases_of_trainer(name: str, base: Path, split: str | None, fold: int) -> tuple[list[str], list[str]]:
    """What the trainer's own do_split says, of a trainer that has its folders, its settings and nothing else."""
    kind: Any = find_trainer(name)
    trainer = kind.__new__(kind)
    folder = str(base / "nnUNetPlans_2d")
    plans = PlansManager({**PLANS, "dataset_name": base.name})
    trainer.__dict__ |= {
        "settings": Settings(split, TrainingSettings(), None),
        "fold": fold,
        "preprocessed_dataset_folder_base": str(base),
        "preprocessed_dataset_folder": folder,
        "dataset_class": infer_dataset_class(folder),
        "folder_with_segs_from_previous_stage": None,
        "plans_manager": plans,
        "_fold_of_checkpoint": None,
        "print_to_log_file": lambda *_, **__: None,
    }
    return trainer.do_split()


@pytest.mark.parametrize(("slug", "block"), BLOCKS)
def test_trainers_get_the_cases_of_the_protocol(slug, block, tmp_path, monkeypatch, capsys):
    words, number = protocol_of(slug, block)
    protocol = read_protocol(ROOT / words[2])
    chosen = words[words.index("--split") + 1] if "--split" in words else next(iter(protocol["splits"]))
    gone = protocol.get("withdrawn", {}).get("units", [])
    units = [unit for unit in dataset_units(protocol) or [f"train_{i}" for i in range(213)] if unit not in gone]
    expected = resolve(protocol, chosen, units, gone)
    cases = {unit: cases_of(protocol, unit) for unit in units}
    held = {*expected.trained, *expected.test}
    base = in_name_only(
        tmp_path,
        monkeypatch,
        f"Dataset{int(number):03d}_Toy",
        [case for unit in units if unit in held for case in cases[unit]],
    )
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    given = [word.replace("$OUT", str(tmp_path / "out")) for word in words[2:]]
    assert apply.main([str(ROOT / given[0]), *given[1:]]) == 0, capsys.readouterr().err

    rows = [row for row in PAGES[slug].rows if row.block == block]
    assert rows
    for row in rows:
        commands = reproduce.commands_of(PAGES[slug], row)
        splits = {words_of_plans(command).split for command in commands if command.startswith("nnunet_ssl plans")}
        (split,) = splits
        for fold in sorted({int(c.split()[3]) for c in commands if c.startswith("nnUNetv2_train")}):
            labeled, validation = cases_of_trainer(row.words["TRAINER"][0], base, split, fold)
            own = expected.folds[fold]
            wanted = own.train if split is None else expected.labeled[split][fold]
            assert set(labeled) == {case for unit in wanted for case in cases[unit]}, (row.name, fold)
            assert set(validation) == {case for unit in own.val for case in cases[unit]}, (row.name, fold)
            assert len(labeled) == len(set(labeled)) and labeled and validation
            assert not {*labeled, *validation} & {case for unit in expected.test for case in cases[unit]}


def test_names_of_cases_are_made_by_the_pattern():
    assert cases_of(read_protocol(PROTOCOLS / "acdc.yaml"), "patient007") == [
        "patient007_frame01",
        "patient007_frame02",
    ]
    assert cases_of(read_protocol(PROTOCOLS / "lits.yaml"), "047") == ["lits_047"]
