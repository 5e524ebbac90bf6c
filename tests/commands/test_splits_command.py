"""`nnunet_ssl splits` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data.splits import load_fold, read_splits
from tests.helpers_splits import CASES, SUBJECTS, make_planned, write_nnunet_folds


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_planned(tmp_path, monkeypatch)


def test_fractions_counts_and_subjects(base, tmp_path, capsys):
    groups = tmp_path / "subjects.csv"
    groups.write_text("case,subject\n" + "".join(f"{case},{subject}\n" for case, subject in SUBJECTS.items()))
    arguments = ["splits", "-d", "4", "--fractions", "0.1", "0.25", "--counts", "6", "--seed", "3"]
    assert main([*arguments, "--groups", str(groups)]) == 0
    splits = read_splits(str(base))
    assert (list(splits.splits), splits.groups) == (["l10", "l25", "n6"], SUBJECTS)
    assert splits.splits["l10"].seed == 3
    output = capsys.readouterr().out
    assert "  fold 0: 6 labelled, 12 unlabelled, 6 validation" in output
    assert "NOTE: training runs whose plans carry no split use nnU-Net's own folds" in output
    assert "nnunet_ssl plans -d 4 --split l10" in output


def test_folds_of_nnunet_need_no_note(base, capsys):
    path = write_nnunet_folds(base, [(CASES[4:], CASES[:4])])
    assert main(["splits", "-d", "4", "--counts", "2", "--names", "two"]) == 0
    output = capsys.readouterr().out
    assert f"Folds from: {path}" in output
    assert "NOTE" not in output
    assert load_fold(str(base), "two", 0).val == CASES[:4]


def test_notes_on_a_second_call(base, capsys):
    main(["splits", "-d", "4", "--fractions", "0.1"])
    write_nnunet_folds(base, [(CASES[4:], CASES[:4])])
    capsys.readouterr()
    assert main(["splits", "-d", "4", "--fractions", "0.2"]) == 0
    assert "NOTE: l10 in the same file validate on other cases" in capsys.readouterr().out
    assert main(["splits", "-d", "4", "--fractions", "0.2"]) == 0
    assert "l20 (unchanged)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["-d", "4"], "give --fractions, --counts or --labeled-from"),
        (["-d", "5", "--counts", "2"], "no dataset 5"),
        (["-d", "4", "-p", "nope", "--counts", "2"], "Plans of this dataset: nnUNetPlans"),
        (["-d", "4", "--counts", "20"], "20 labelled cases are more"),
        (["-d", "4", "--counts", "2", "--groups", "none.csv"], "none.csv does not exist"),
    ],
)
def test_errors_are_explained_and_nothing_is_written(base, capsys, arguments, word):
    assert main(["splits", *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("nnunet_ssl splits: ")
    assert word in captured.err
    assert not (base / "splits_ssl.json").exists()
