"""benchmarks/reproduce.py --run goes on where an earlier run was stopped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import PROTOCOLS

sys.path.insert(0, str(PROTOCOLS.parent))
import reproduce
from resume import left_of

TRAIN = "nnUNetv2_train 7 2d 3 -p row -tr nnUNetTrainerUAMT"
FOLD = "nnUNet_results/Dataset007_Toy/nnUNetTrainerUAMT__row__2d/fold_3"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "OUT"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_training_goes_on_and_then_is_done(root):
    assert left_of(TRAIN) == TRAIN
    put(root / FOLD / "checkpoint_best.pth")
    assert left_of(TRAIN) == TRAIN, "not enough to go on from"
    put(root / FOLD / "checkpoint_latest.pth")
    assert left_of(TRAIN) == f"{TRAIN} --c"
    put(root / FOLD / "checkpoint_final.pth")
    assert left_of(TRAIN) == f"{TRAIN} --val", "stopped while it validated"
    put(root / FOLD / "validation" / "summary.json")
    assert left_of(TRAIN) is None
    for other in (TRAIN.replace("-p row", "-p row2"), TRAIN.replace(" 3 ", " 4 "), TRAIN.replace("UAMT", "CPS")):
        assert left_of(other) == other


@pytest.mark.parametrize(
    "command",
    [
        "nnunet_ssl evaluate -ref labels -pred $OUT/page/row --convention plgcl",
        "nnunet_ssl evaluate -ref labels -pred elsewhere -o $OUT/page/row --convention uamt",
        "nnunet_ssl predict-as-paper -d 7 -c 2d -p row -tr T -i images -o $OUT/page/row",
        "nnunet_ssl predict-as-paper -d 7 -c 2d -p row -tr T -i images -o $OUT/page/row/grid",
        "python benchmarks/protocols/as_published.py back -i $OUT/page/row/grid -ref labels -o $OUT/page/row",
    ],
)
def test_what_has_been_scored_is_done(root, command):
    put(root / "OUT" / "page" / "row2" / "evaluation.json")
    assert left_of(command) == command
    put(root / "OUT" / "page" / "row" / "evaluation.json")
    assert left_of(command) is None


def test_preprocessing_is_done_once_every_case_is_there(root):
    command = "nnUNetv2_plan_and_preprocess -d 7 -c 2d"
    assert left_of(command) == command
    for case in ("a", "b"):
        put(root / "nnUNet_raw" / "Dataset007_Toy" / "labelsTr" / f"{case}.nii.gz")
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        put(root / folder / "Dataset007_Toy" / "dataset.json")
    base = root / "nnUNet_preprocessed" / "Dataset007_Toy"
    put(base / "nnUNetPlans.json")
    put(base / "nnUNetPlans_2d" / "a.pkl")
    assert left_of(command) == command
    put(base / "nnUNetPlans_2d" / "b.pkl")
    assert left_of(command) is None
    assert left_of(command.replace("2d", "3d_fullres")) is not None


def test_a_converter_of_nnunet_runs_once(root):
    convert = "python -m nnunetv2.dataset_conversion.Some amos22 -d 7"
    move = "mv $nnUNet_raw/Dataset007_Long $nnUNet_raw/Dataset007_Toy"
    (root / "nnUNet_raw" / "Dataset007_Long").mkdir(parents=True)
    assert left_of(convert) == convert, "stopped before dataset.json"
    put(root / "nnUNet_raw" / "Dataset007_Long" / "dataset.json")
    assert left_of(convert) is None and left_of(move) == move
    (root / "nnUNet_raw" / "Dataset007_Long").rename(root / "nnUNet_raw" / "Dataset007_Toy")
    assert left_of(convert) is None and left_of(move) is None


def test_commands_that_look_for_themselves_are_always_run(root):
    for command in ("nnunet_ssl plans -d 7 -p base --name row", "ls $OUT/a/labels | sed s/.nii.gz// > $OUT/cases.txt"):
        assert left_of(command) == command


def test_run_starts_only_what_is_left(root, tmp_path, capsys):
    page = tmp_path / "page.md"
    row = "| `a` | b | 1 | `c` | `FOLD=0,1` |"
    lines = ["mkdir $OUT/FOLD_seen", "nnunet_ssl evaluate -pred $OUT/page/ROW/FOLD"]
    page.write_text("# A\n\n## Commands `c`\n\n" + "".join(f"    {line}\n" for line in lines) + f"\n{row}\n")
    for fold in (0, 1):
        put(root / "OUT" / "page" / "a" / str(fold) / "evaluation.json")
    assert reproduce.main([str(page), "--run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.startswith("# done: ") for line in printed] == [False, False, True, True]
    assert (root / "OUT" / "0_seen").is_dir()
