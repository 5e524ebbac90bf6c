"""docs/reproduce: every command of every row is one that exists, with settings that exist."""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_ssl.cli import COMMANDS, build_parser
from nnunet_ssl.planning.plans_copy import parse_assignments, parse_settings_of_all
from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.settings import TrainingSettings, find_problems, prediction_problems

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "protocols"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import reproduce
from protocol_file import read_protocol

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"skcdf": "SKCDF", "dkuxnet": "DKUXNet", "dual_networks": "Dual Networks", "plgcl": "PLGCL",
         "cmaformer_ldc": "CMAformer"}  # fmt: skip
OWN = {
    "skcdf": r"t[345]-.*|.*-skcdf",
    "dkuxnet": r"t2-.*|.*-dkuxnet-.*",
    "dual_networks": r"t3-.*|.*-dual",
    "plgcl": r"t[23]-.*|.*-plgcl-.*",
    "cmaformer_ldc": r"t3-.*|t\d-cmaformer.*",
}
"""Rows that train the paper's own method or its ablations."""


def page(slug: str) -> reproduce.Page:
    return reproduce.read_page(ROOT / "docs" / "reproduce" / f"{slug}.md")


def text(slug: str) -> str:
    """The words of a page, wherever its lines end."""
    return " ".join((ROOT / "docs" / "reproduce" / f"{slug}.md").read_text(encoding="utf-8").split())


def counts(slug: str) -> tuple[int, int, int, int]:
    """Rows, with commands, of the own method, of those with commands."""
    rows = page(slug).rows
    own = [row for row in rows if re.fullmatch(OWN[slug], row.name)]
    return len(rows), sum(r.runs for r in rows), len(own), sum(r.runs for r in own)


def every_command(slug: str) -> list[str]:
    """Of the preparation and of all rows, each once."""
    found = page(slug)
    rows = [c for row in found.rows if row.runs for c in reproduce.commands_of(found, row)]
    return list(dict.fromkeys([*found.preparation, *rows, *found.figures]))


@pytest.mark.parametrize("slug", PAGES)
def test_counts(slug):
    rows, runs, own, own_runs = counts(slug)
    assert f"{rows} rows, {runs} with commands, {rows - runs} without: " in text(slug)
    assert f"Of the {own} rows that train the paper's own method or its ablations, {own_runs} have" in text(slug)
    summary = f"| {rows} | {runs} | {rows - runs} | {own_runs} of {own} |"
    assert summary in text("README")
    assert all(row.words[""][0] for row in page(slug).rows if not row.runs), "a reason"


def test_counts_of_all():
    rows, runs, own, own_runs = (sum(numbers) for numbers in zip(*map(counts, PAGES), strict=True))
    assert f"| all | {rows} | {runs} | {rows - runs} | {own_runs} of {own} |" in text("README")
    assert own_runs >= 0.9 * own
    assert f"{runs} of the {rows} rows" in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("slug", PAGES)
def test_published_values_are_those_of_the_report(slug):
    with open(ROOT / "nnunet_ssl" / "evaluation" / "report" / "published.csv", newline="") as file:
        known = {float(r["value"]) for r in csv.DictReader(file) if PAGES[slug].lower() in r["paper"].lower()}
    assert known
    tables_1 = [row for row in page(slug).rows if row.name.startswith("t1") and row.published]
    for row in tables_1:
        for value in re.findall(r"(?:^|, )(\d+\.\d+)", row.published):
            assert known & {float(value), round(100 * float(value), 3)}, (row.name, value)


@pytest.mark.parametrize("slug", PAGES)
def test_the_number_of_trainings_is_said(slug):
    rows = [row for row in page(slug).rows if row.runs]
    trained = [c for row in rows for c in reproduce.commands_of(page(slug), row) if c.startswith("nnUNetv2_train")]
    assert len(trained) == len(set(trained))
    assert re.search(rf"(?<!\S){len(trained)} trainings", text(slug))


# ---- the commands


def parsed(words: list[str]) -> argparse.Namespace:
    return build_parser(words[0]).parse_args(words)


def check_ours(words: list[str]) -> None:
    args = parsed(words)
    if words[0] == "plans":
        training, hyperparameters = parse_settings_of_all(args.training, args.hyperparameters)
        assert find_problems(TrainingSettings, training, "training") == []
        assert prediction_problems(parse_assignments(args.prediction)) == []
        for trainer, values in hyperparameters.items():
            assert find_problems(find_trainer(trainer).Hyperparameters, values, trainer) == []
    if words[0] == "predict-as-paper":
        find_trainer(args.tr)


def check_script(path: str, words: list[str]) -> None:
    """The script's own parser, and the protocols and splits that it is given."""
    module = importlib.import_module(Path(path).stem)
    if hasattr(module, "arguments"):
        args = module.arguments(words)
        if Path(path).stem == "apply":
            protocol = read_protocol(str(ROOT / args.protocol))
            assert args.split is None or args.split in protocol["splits"]
    else:  # stops where the parser has done its work, and the folder is not there
        with pytest.raises(SystemExit):
            module.main([*words, "--help"])
        assert module.main([*words]) == 1


@pytest.mark.parametrize("slug", PAGES)
def test_every_command_is_one(slug, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setenv("OUT", str(tmp_path))
    for command in every_command(slug):
        program, *words = shlex.split(command.split(" | ")[0])
        if program == "nnunet_ssl":
            assert words[0] in COMMANDS
            check_ours(words)
        elif program == "nnUNetv2_train":
            assert [w for w in words if w.startswith("-")] == ["-p", "-tr"] and len(words) == 7, command
            find_trainer(words[-1])
        elif program == "python" and words[0] == "-m":
            assert importlib.util.find_spec(words[1]) is not None
        elif program == "python":
            assert (ROOT / words[0]).is_file()
            check_script(words[0], words[1:])
        else:
            assert program in ("nnUNetv2_plan_and_preprocess", "mv", "ls"), command


@pytest.mark.parametrize("slug", PAGES)
def test_labelled_sets_are_those_of_the_protocols(slug):
    found = page(slug)
    protocols = [shlex.split(c) for c in found.preparation if "apply.py" in c]
    sets = set()
    for words in protocols:
        protocol = read_protocol(str(ROOT / words[2]))
        chosen = words[words.index("--split") + 1] if "--split" in words else next(iter(protocol["splits"]))
        sets |= set(protocol["splits"][chosen]["labeled"])
    named = {row.words["SPLIT"][0].removeprefix("--split ") for row in found.rows if row.runs} - {""}
    assert named and named <= sets


@pytest.mark.parametrize("slug", PAGES)
def test_a_plan_that_a_row_copies_is_made_by_the_preparation(slug):
    found = page(slug)
    made = set()
    for command in found.preparation:
        if command.startswith("nnunet_ssl plans"):
            args = parsed(shlex.split(command)[1:])
            made.add((args.d, args.name))
    for row in found.rows:
        for command in reproduce.commands_of(found, row) if row.runs else []:
            if command.startswith("nnunet_ssl plans"):
                args = parsed(shlex.split(command)[1:])
                assert (args.d, args.p) in made, command


def written(command: str) -> Iterator[str]:
    """The folders or files of scores, predictions and figures that a command writes below $OUT."""
    words = shlex.split(command)
    options = ["--test", "-o", *(["-pred"] if words[1] == "evaluate" and "-o" not in words else [])]
    yield from (words[words.index(o) + 1] for o in options if o in words and words[words.index(o) + 1].startswith("$"))


def test_scores_of_a_row_lie_in_a_folder_of_its_own():
    owners: dict[str, set[str]] = {}
    for slug in PAGES:
        found = page(slug)
        assert found.name == slug
        by_row = {row.name: reproduce.commands_of(found, row) for row in found.rows if row.runs}
        for owner, commands in {**by_row, "preparation": found.preparation, "figures": found.figures}.items():
            for place in {place for command in commands for place in written(command)}:
                assert place.startswith(f"$OUT/{slug}/"), place
                assert owner in ("preparation", "figures") or place.split("/")[2] == owner, place
                owners.setdefault(place, set()).add(f"{slug} {owner}")
        runs = [place for row in by_row.values() for command in row for place in written(command)
                if shlex.split(command)[1] == "evaluate"]  # fmt: skip
        assert len(runs) == len(set(runs)), "two runs, one file of scores"
    assert {place: found for place, found in owners.items() if len(found) > 1} == {}


# ---- the script


def test_a_small_command_is_small():
    command = (
        "nnunet_ssl plans -d 1 -c 2d --network vnet16 --dropout 0.5 --patch 80 112 112 --batch 2 --name v "
        "--prediction stride=[4,18,18] checkpoint=best"
    )
    assert reproduce.smaller(command) == (
        "nnunet_ssl plans -d 1 -c 2d --network vnet16 --features 2 4 4 4 4 --dropout 0.5 --patch 32 32 32 --batch 2 "
        "--name v --prediction stride=[16,16,16] checkpoint=best"
    )
    assert reproduce.smaller("plans --features 48 96 192 384 768 -d 1") == "plans --features 4 8 8 8 -d 1"
    row = "nnunet_ssl plans -d 1 -p v --name r --training seed=0 num_epochs=120 --hyperparameters T:a=1"
    assert reproduce.smaller(row) == (
        "nnunet_ssl plans -d 1 -p v --name r --training num_epochs=1 num_iterations_per_epoch=2 "
        "num_val_iterations_per_epoch=1 seed=0 --hyperparameters T:a=1"
    )
    kept = "plans -p v --training kept_epochs=[5,8] seed=0"
    assert "kept_epochs" not in reproduce.smaller(f"nnunet_ssl {kept}")
    figure = (
        "nnunet_ssl figure embeddings -tr T -chk checkpoint_epoch_5.pth checkpoint_epoch_8.pth checkpoint_final.pth"
    )
    assert reproduce.smaller(figure) == "nnunet_ssl figure embeddings -tr T -chk checkpoint_final.pth -device cpu"
    assert reproduce.smaller("nnunet_ssl figure labels -pred A=b") == "nnunet_ssl figure labels -pred A=b"
    assert reproduce.smaller("nnUNetv2_train 1 2d 0 -p r -tr T").endswith("-tr T -device cpu")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("| `a` | b | 1 | `c` | `BASE=v; FOLD=0,1` |", "nothing stands for TRAINER"),
        ("| `a` | b | 1 | `c` | `BASE=v; FOLD=0; TRAINER=T; SEED=1` |", "have no word SEED"),
        ("| `a` | b | 1 | `other` | `BASE=v` |", "unknown commands"),
        ("| `a` | b | 1 | `c` |", "needs 5 cells"),
    ],
)
def test_rows_that_mean_nothing(tmp_path, row, message):
    path = tmp_path / "page.md"
    path.write_text(f"# A\n\n## Commands `c`\n\n    nnUNetv2_train BASE_x FOLD -p ROW -tr TRAINER\n\n{row}\n")
    with pytest.raises(ValueError, match=message):
        found = reproduce.read_page(path)
        reproduce.commands_of(found, found.rows[0])


def test_lists_repeat_a_line_and_the_table_has_the_means(tmp_path):
    path = tmp_path / "page.md"
    row = "| `a` | b | 1 | `c` | `FOLD=0,1; TRAINER=T` |"
    path.write_text(f"# A\n\n## Commands `c`\n\n    train FOLD -tr TRAINER__ROW\n    done ROW\n\n{row}\n")
    found = reproduce.read_page(path)
    assert reproduce.commands_of(found, found.rows[0]) == ["train 0 -tr T__a", "train 1 -tr T__a", "done a"]
    for fold, dice in enumerate((0.5, 0.7)):
        folder = tmp_path / "page" / "a" / f"fold_{fold}"
        folder.mkdir(parents=True)
        (folder / "evaluation.json").write_text(f'{{"mean": {{"dice": {dice}, "asd": null}}}}')
    assert reproduce.table(found, tmp_path).splitlines()[-1] == "| `a` | b | 1 | 2 | 0.600 ± 0.100 | - | - | - |"
    path.write_text(path.read_text() + "\nPublished: Dice and\nPublished: Dice in %, ASD in voxels\n")
    in_percent = reproduce.table(reproduce.read_page(path), tmp_path)
    assert in_percent.splitlines()[-1] == "| `a` | b | 1 | 2 | 60.00 ± 10.00 | - | - | - |"


@pytest.mark.parametrize("slug", PAGES)
def test_overlaps_are_in_the_unit_of_the_page(slug):
    found = page(slug)
    numbers = [float(row.published.split(",")[0].split()[0]) for row in found.rows if row.published]
    assert found.percent == (max(numbers) > 1)
