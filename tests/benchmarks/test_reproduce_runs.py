"""The pages of docs/reproduce as they stand, from raw files of the official layouts to a table, with --small.

Each data set is imitated with every case that its protocol names, and prepared as its page says. Then every row that
names its commands runs them in order, of several folds or seeds the first: plans, training, prediction and scores. Its
trainer must get the published cases. `make test-pages` runs all of this, `make test` the cheapest data set.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from protocol_file import expand, read_protocol

from nnunet_ssl.cli import main
from nnunet_ssl.trainers import find_trainer
from tests.benchmarks import imitated
from tests.benchmarks.conftest import PROTOCOLS
from tests.integration.commands import Project

sys.path.insert(0, str(PROTOCOLS.parent))
import reproduce

ROOT = PROTOCOLS.parents[1]
ALL = (pytest.mark.pages, pytest.mark.slow)

# page, name of its commands -> who writes the raw data, numbers of the data sets on the way
CASES: dict[tuple[str, str], tuple[Callable[[Path], None], tuple[str, ...]]] = {
    ("skcdf", "synapse"): (imitated.synapse, ("203", "213")),
    ("skcdf", "amos"): (imitated.amos, ("219", "229")),
    ("dkuxnet", "la"): (imitated.left_atrium, ("201", "211")),
    ("dual_networks", "la"): (imitated.left_atrium, ("201", "221")),
    ("dual_networks", "pancreas"): (imitated.pancreas, ("202", "212")),
    ("plgcl", "acdc"): (imitated.acdc, ("27", "217")),
    ("plgcl", "kits"): (imitated.kits19, ("204",)),
    ("plgcl", "crag"): (imitated.crag, ("207",)),
    ("cmaformer_ldc", "synapse"): (partial(imitated.synapse, shape=imitated.FLAT), ("206",)),
    ("cmaformer_ldc", "lits"): (imitated.lits, ("205", "215")),
}
CHEAPEST = ("cmaformer_ldc", "synapse")
PAGES = {slug: reproduce.read_page(ROOT / "docs" / "reproduce" / f"{slug}.md") for slug, _ in CASES}


class Desk:
    """$DATA with the raw data, nnU-Net's folders and $OUT, where commands run as they stand on a page."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.monkeypatch = Project(root, "-"), monkeypatch
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "out"):
            (root / name).mkdir()
            monkeypatch.setenv("OUT" if name == "out" else name, str(root / name))
        monkeypatch.setenv("DATA", str(root))
        monkeypatch.chdir(root)

    def run(self, command: str) -> None:
        """One command: nnU-Net's in forks, the others in this process."""
        if command.startswith(("ls ", "mv ")):
            subprocess.run(command, shell=True, check=True)
            return
        program, *words = (os.path.expandvars(word) for word in shlex.split(command))
        if program == "python" and words[0] == "-m":
            self.monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_module(words[1], run_name="__main__")
        elif program == "python":
            script = importlib.import_module(Path(words[0]).stem)
            words = [re.sub(r"^benchmarks/", f"{ROOT}/benchmarks/", word) for word in words[1:]]
            one = ["-np", "1"] if re.search(r"as_published.py make|prepare_(?!crag)", command) else []
            assert script.main([*words, *one]) == 0, command
        elif program == "nnunet_ssl":
            assert main([*words, *(["-np", "1"] if words[0] == "evaluate" else [])]) == 0, command
        else:
            more = ["-npfp", "1", "-np", "1"] if program == "nnUNetv2_plan_and_preprocess" else []
            loading = {"nnUNet_n_proc_DA": "0"} if program == "nnUNetv2_train" else {}  # without processes of its own
            self.project.run(program, *words, *more, **loading)


def belongs(command: str, case: tuple[str, str]) -> bool:
    """Whether a command of the preparation is about this data set."""
    numbers = set(re.findall(r"(?:-[do] |Dataset|train )0*(\d+)", command))
    return bool(numbers & set(CASES[case][1])) or re.search(rf"\$OUT/{case[0]}/{case[1]}\d*/", command) is not None


def test_every_data_set_and_every_row_with_commands_is_tried():
    assert {slug for slug, _ in CASES} | {"README"} == {p.stem for p in (ROOT / "docs" / "reproduce").glob("*.md")}
    assert set(CASES) == {(slug, row.block) for slug, page in PAGES.items() for row in page.rows if row.runs}
    for slug, page in PAGES.items():
        left = [
            c
            for c in [*page.preparation, *page.figures]
            if not any(belongs(c, case) for case in CASES if case[0] == slug)
        ]
        assert left == []


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case == CHEAPEST else ALL, id="-".join(case)) for case in CASES]
)
def test_a_data_set_from_raw_files_to_the_table(case, tmp_path, monkeypatch, capsys):
    (slug, block), page = case, PAGES[case[0]]
    CASES[case][0](tmp_path)
    desk = Desk(tmp_path, monkeypatch)
    preparation = [command for command in page.preparation if belongs(command, case)]
    for command in preparation:
        desk.run(reproduce.smaller(command))
    (protocol,) = (shlex.split(command) for command in preparation if "apply.py" in command)

    # of several folds or seeds the first: the others are the same commands
    rows = [replace(r, words={k: v[:1] for k, v in r.words.items()}) for r in page.rows if r.block == block]
    for row in rows:
        for command in reproduce.commands_of(page, row):
            if command.startswith("nnUNetv2_train"):
                check_trainer(command, protocol, row)
            desk.run(reproduce.smaller(command))

    for command in (c for c in page.figures if belongs(c, case)):
        before = pictures()
        desk.run(reproduce.smaller(command))  # some train what a later one shows
        assert bool(pictures().items() - before.items()) == command.startswith("nnunet_ssl figure")
    capsys.readouterr()
    assert reproduce.main([str(ROOT / "docs" / "reproduce" / f"{slug}.md"), "--table"]) == 0
    found = [line.strip("|").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip() for cell in line[:4]] for line in found] == [
        [f"`{row.name}`", row.paper, row.published, "1"] for row in rows
    ]
    assert all(0 <= float(line[4]) <= (100 if page.percent else 1) for line in found)


def pictures() -> dict[Path, int]:
    """Below $OUT, with the time of writing; of data in PNG they include predictions."""
    return {path: path.stat().st_mtime_ns for path in Path(os.environ["OUT"]).rglob("*.png")}


def check_trainer(command: str, protocol_command: list[str], row: reproduce.Row) -> None:
    """The trainer of a row can be built from its plans, for two steps, and has the protocol's cases."""
    words = shlex.split(command)
    number, configuration, fold, plans_name, name = words[1], words[2], int(words[3]), words[5], words[7]
    (base,) = Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(number):03d}_*")
    plans = json.loads((base / f"{plans_name}.json").read_text())
    trainer = find_trainer(name)(plans, configuration, fold, json.loads((base / "dataset.json").read_text()),
                                 torch.device("cpu"))  # fmt: skip
    assert trainer.num_epochs * trainer.settings.training.num_iterations_per_epoch == 2
    labeled, validation = trainer.do_split()
    protocol = read_protocol(str(ROOT / protocol_command[2]))
    chosen = protocol_command[protocol_command.index("--split") + 1] if "--split" in protocol_command else None
    split = protocol["splits"][chosen or next(iter(protocol["splits"]))]
    rule = split["labeled"][row.words["SPLIT"][0].split()[1]] if row.words["SPLIT"][0] else None
    if "draw" in split:  # the file has numbers and a seed
        assert len(labeled) == (rule["count"] if rule else split["counts"]["train"][fold])
        assert len(validation) == split["counts"]["val"][fold]
        return
    unit, gone = re.compile(protocol["case_names"]["pattern"]), protocol.get("withdrawn", {"units": ()})["units"]
    lists = {part: expand(entry) for part, entry in protocol["lists"].items()}
    training, held = ([u for part in split["folds"][fold][key] for u in lists[part]] for key in ("train", "val"))
    wanted = training if rule is None else lists[rule["list"]] if "list" in rule else training[: rule["count"]]
    for found, expected in ((labeled, wanted), (validation, held)):
        units = {unit.fullmatch(case)[1] for case in found}  # type: ignore[index]
        assert units == set(expected) - set(gone)
        assert len(found) == len(units) * protocol["case_names"].get("cases_per_unit", 1)
