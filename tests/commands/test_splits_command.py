"""`nnunet_ssl splits` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data.splits import load_fold, read_splits
from tests.helpers_splits import CASES, SUBJECTS, make_planned, show, write_nnunet_folds


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


@pytest.mark.parametrize("named", [True, False], ids=["named lists", "one list"])
@pytest.mark.parametrize("renamed", [True, False])
@pytest.mark.parametrize("options", [[], ["--groups"], ["--folds", "2"], ["--ignore-existing-folds"]])
def test_listed_cases_that_a_fold_drops_are_named(base, tmp_path, capsys, named, renamed, options):
    file, groups = tmp_path / "lists.json", tmp_path / "subjects.json"
    lists = {"few": CASES[:12]} if named else CASES[:12]
    file.write_text(json.dumps(lists))
    groups.write_text(json.dumps(SUBJECTS))
    if options == ["--groups"]:
        options = [*options, str(groups)]
    if "--folds" not in options:
        write_nnunet_folds(base, [(CASES[2:], CASES[:2]), (CASES[:20], CASES[22:])])
    name = "mine" if renamed else "few" if named else "list"
    arguments = ["splits", "-d", "4", "--labeled-from", str(file), *options, *(["--names", name] if renamed else [])]
    assert main(arguments) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"NOTE: {name}, fold")]
    split = read_splits(str(base)).splits[name]
    expected = {i: set(CASES[:12]) - set(fold.labeled) for i, fold in enumerate(split.folds)}
    assert [f"fold {i}:" for i, dropped in expected.items() if dropped] == [
        " ".join(note.split()[2:4]) for note in notes
    ]
    for note, dropped in zip(notes, filter(None, expected.values()), strict=True):
        assert f": {len(dropped)} of 12 listed cases are not labelled: {', '.join(sorted(dropped))} validate" in note
    if options != ["--ignore-existing-folds"] and "--folds" not in options:
        assert expected == {0: {"toy_01", "toy_02"}, 1: set()}


def test_a_listed_case_in_no_part_of_a_fold_is_named(base, tmp_path, capsys):
    file = tmp_path / "list.json"
    file.write_text(json.dumps([CASES[0], CASES[20], CASES[23]]))
    write_nnunet_folds(base, [(CASES[:20], CASES[22:])])
    assert main(["splits", "-d", "4", "--labeled-from", str(file)]) == 0
    assert (
        "NOTE: list, fold 0: 2 of 3 listed cases are not labelled: toy_24 validate; toy_21 in no part of the fold"
        in capsys.readouterr().out
    )


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


class TestFewCases:
    @pytest.fixture
    def three(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        return make_planned(tmp_path, monkeypatch, CASES[:3])

    def test_the_advice_cures(self, three, capsys):
        assert main(["splits", "-d", "4", "--counts", "1"]) == 1
        assert "3 cases are too few for 5 folds.\nRepeat this command with --folds 3: " in capsys.readouterr().err
        assert [*three.glob("splits*")] == []
        assert main(["splits", "-d", "4", "--counts", "1", "--folds", "3"]) == 0
        output = capsys.readouterr().out
        assert f"Folds from: {three / 'splits_final.json'}" in output
        assert "  fold 2: 1 labelled, 1 unlabelled, 1 validation" in output and "NOTE" not in output
        assert [fold["val"] for fold in json.loads((three / "splits_final.json").read_text())] == [
            load_fold(str(three), "n1", fold).val for fold in range(3)
        ]

    def test_folds_alone(self, three, capsys):
        assert main(["splits", "-d", "4", "--folds"]) == 0
        output = capsys.readouterr().out
        assert "  fold 2: 2 training, 1 validation" in output and "nnUNetv2_train 4 CONFIGURATION 0" in output
        assert len(json.loads((three / "splits_final.json").read_text())) == 3
        assert not (three / "splits_ssl.json").exists()

    def test_subjects_stay_together(self, three, tmp_path, capsys):
        groups = tmp_path / "subjects.json"
        groups.write_text(json.dumps({case: SUBJECTS[case] for case in CASES[:3]}))  # of two subjects
        arguments = ["splits", "-d", "4", "--counts", "1", "--groups", str(groups)]
        assert main(arguments) == 1
        assert "2 groups are too few for 5 folds.\nRepeat this command with --folds 2: " in capsys.readouterr().err
        assert main([*arguments, "--folds", "2"]) == 0
        folds = json.loads((three / "splits_final.json").read_text())
        assert sorted(fold["val"] for fold in folds) == [CASES[:2], CASES[2:3]]
        assert read_splits(str(three)).groups == {case: SUBJECTS[case] for case in CASES[:3]}

    def test_one_case(self, tmp_path, monkeypatch, capsys):
        make_planned(tmp_path, monkeypatch, CASES[:1])
        for arguments in (["--counts", "1"], ["--folds"]):
            assert main(["splits", "-d", "4", *arguments]) == 1
            message = capsys.readouterr().err
            assert "1 case is too few" in message and "nnUNetv2_train 4 CONFIGURATION all" in message

    def test_existing_folds_are_kept(self, three, capsys):
        path = write_nnunet_folds(three, [(CASES[:2], CASES[2:3])])
        before = path.read_bytes()
        assert main(["splits", "-d", "4", "--folds", "3", "--counts", "1"]) == 1
        assert "with other folds, and is never replaced" in capsys.readouterr().err
        assert path.read_bytes() == before and not (three / "splits_ssl.json").exists()
        assert main(["splits", "-d", "4", "--folds", "3", "--counts", "1", "--ignore-existing-folds"]) == 0
        assert "NOTE: training runs whose plans carry no split" in capsys.readouterr().out
        assert path.read_bytes() == before and load_fold(str(three), "n1", 2).val


def test_a_list_without_a_case_of_a_fold_says_what_to_add(base, tmp_path, capsys):
    write_nnunet_folds(base, [(CASES[4:], CASES[:4]), (CASES[:10], CASES[10:])])
    given = tmp_path / "list.json"
    given.write_text(json.dumps(CASES[:4]))
    assert main(["splits", "-d", "4", "--labeled-from", str(given)]) == 1
    message = capsys.readouterr().err
    assert 'split "list", fold 0: no labelled case' in message
    assert "Add a training case of each of these folds to the list:\nfold 0 trains on toy_05, toy_06" in message
    given.write_text(json.dumps(CASES[:5]))
    assert main(["splits", "-d", "4", "--labeled-from", str(given)]) == 0


def test_a_class_that_no_labelled_case_shows(base, capsys):
    write_nnunet_folds(base, [(CASES[4:], CASES[:4])])
    assert main(["splits", "-d", "4", "--counts", "2"]) == 0
    assert "NOTE" not in capsys.readouterr().out
    labeled = load_fold(str(base), "n2", 0).labeled
    for case in set(CASES) - {"toy_10"}:
        show(base / "nnUNetPlans_3d_fullres", case, *([1] if case in [*labeled, "toy_01"] else []))
    assert main(["splits", "-d", "4", "--counts", "2"]) == 0
    output = capsys.readouterr().out
    assert "NOTE: n2, fold 0: no labelled case shows inner; withheld cases that have it: toy_10" in output
    assert "outer" not in output


def test_what_the_labels_show_cannot_be_read(base, capsys):
    (base / "nnUNetPlans_3d_fullres" / "toy_10.pkl").write_bytes(b"")
    assert main(["splits", "-d", "4", "--counts", "2"]) == 0
    output = capsys.readouterr().out
    assert "NOTE: it was not checked whether the labelled cases show every class: " in output and "toy_10.pkl" in output
