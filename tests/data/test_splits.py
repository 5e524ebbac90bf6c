"""Reading, verifying and writing splits_ssl.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from nnunet_ssl.data.splits import Fold, Split, Splits, load_fold, read_splits, write_splits
from nnunet_ssl.errors import SemiSupervisedError
from tests.helpers_splits import DATASET, edit

FOLDS = [Fold(["a1", "a2"], ["b1", "b2"], ["c1"]), Fold(["c1"], ["a1", "a2"], ["b1", "b2"])]
GROUPS = {"a1": "A", "a2": "A", "b1": "B", "b2": "B", "c1": "C"}
SPLITS = Splits(DATASET, GROUPS, {"l50": Split(0.5, 0, FOLDS), "n2": Split(0.4, 3, FOLDS, count=2)})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / DATASET
    folder.mkdir()
    write_splits(str(folder), SPLITS)
    return folder


def fails(base: Path, *words: str, split: str = "l50", fold: int | str = 0, known: list[str] | None = None) -> str:
    with pytest.raises(SemiSupervisedError) as caught:
        load_fold(str(base), split, fold, known)
    message = str(caught.value)
    for word in words:
        assert word in message
    return message


def in_first_fold(part: str, change):
    return lambda content: change(content["splits"]["l50"]["folds"][0][part])


def test_what_was_written_is_read(base):
    assert read_splits(str(base)) == SPLITS
    assert load_fold(str(base), "l50", 1) == FOLDS[1]
    assert load_fold(f"{base}/", "n2", 0, list(GROUPS)) == FOLDS[0]
    assert sorted(p.name for p in base.iterdir()) == ["splits_ssl.json"]  # no temporary file left


def test_the_format_is_the_documented_one(base):
    content = json.loads((base / "splits_ssl.json").read_text())
    assert list(content) == ["version", "dataset", "sha256", "groups", "splits"]
    assert content["version"] == 1
    assert content["splits"]["l50"] == {
        "fraction": 0.5,
        "seed": 0,
        "folds": [
            {"labeled": ["a1", "a2"], "unlabeled": ["b1", "b2"], "val": ["c1"]},
            {"labeled": ["c1"], "unlabeled": ["a1", "a2"], "val": ["b1", "b2"]},
        ],
    }
    assert content["splits"]["n2"]["count"] == 2
    stored = content.pop("sha256")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert stored == hashlib.sha256(canonical.encode()).hexdigest()


def test_layout_and_order_of_keys_do_not_matter(base):
    path = base / "splits_ssl.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    assert load_fold(str(base), "l50", 0) == FOLDS[0]


def test_missing_file_names_the_command(tmp_path):
    empty = tmp_path / DATASET
    empty.mkdir()
    fails(empty, str(empty / "splits_ssl.json"), "nnunet_ssl splits -d 4 --counts 6", split="n6")


def test_unknown_split_lists_the_others_and_names_the_command_that_makes_it(base):
    fails(base, '"l10"', "l50, n2", "nnunet_ssl splits -d 4 --fractions 0.1", split="l10")
    fails(base, '"n3"', "nnunet_ssl splits -d 4 --counts 3", split="n3")


@pytest.mark.parametrize("fold", [2, -1, "all", True])
def test_unknown_fold_lists_the_others(base, fold):
    fails(base, f"no fold {fold!r}", "Folds: 0, 1", fold=fold)


@pytest.mark.parametrize(
    ("text", "word"), [("{", "not readable JSON"), ("", "not readable JSON"), ("\xff", "not text in utf-8")]
)
def test_damaged_file(base, text, word):
    (base / "splits_ssl.json").write_bytes(text.encode("latin-1"))
    fails(base, word)


@pytest.mark.parametrize("version", [2, None, "1"])
def test_unknown_version(base, version):
    edit(base, lambda content: content.update(version=version), rehash=True)
    fails(base, f"version {version!r}", "reads version 1")


def test_file_of_another_dataset(base):
    edit(base, lambda content: content.update(dataset="Dataset005_Other"), rehash=True)
    fails(base, "Dataset005_Other", DATASET)


@pytest.mark.parametrize(
    "change",
    [
        in_first_fold("labeled", lambda cases: cases.append("b3")),
        in_first_fold("val", lambda cases: cases.clear()),
        lambda content: content["groups"].pop("a1"),
        lambda content: content["splits"]["n2"].update(seed=1),  # another split than the one asked for
        lambda content: content.update(sha256="0" * 64),
        lambda content: content.pop("sha256"),
        lambda content: content.update(comment="harmless"),
    ],
)
def test_edit_by_hand(base, change):
    edit(base, change, rehash=False)
    fails(base, "edited by hand or is damaged")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            in_first_fold("labeled", lambda c: c.extend(["c1", "b1"])),
            ["labeled and val: c1", "labeled and unlabeled: b1"],
        ),
        (in_first_fold("unlabeled", lambda c: c.append("c1")), ["unlabeled and val: c1"]),
        (in_first_fold("labeled", lambda c: c.append("a1")), ["more than once in labeled: a1"]),
        (
            in_first_fold("labeled", lambda c: c.clear()),
            ["no labelled case", "--fractions 0.5 --overwrite"],
        ),
        (in_first_fold("val", lambda c: c.clear()), ["no validation case"]),
        (in_first_fold("labeled", lambda c: c.append(c.pop() and "z")), ["in no group: z"]),
        (lambda c: c["groups"].update(b1="A", b2="C"), ["labeled and unlabeled: A", "unlabeled and val: C"]),
    ],
)
def test_wrong_content_with_a_fitting_hash(base, change, words):
    edit(base, change, rehash=True)
    fails(base, *words)


def test_unknown_cases_are_all_listed(base):
    assert load_fold(str(base), "l50", 0, ["a1", "a2", "b1", "b2", "c1", "more"]) == FOLDS[0]
    fails(base, "not among the preprocessed labelled cases: a2, b1, c1", known=["a1", "b2"])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda c: c.update(groups=[]), '"groups"'),
        (lambda c: c.update(groups={"a1": 3}), '"groups"'),
        (lambda c: c.update(splits=[]), '"splits"'),
        (lambda c: c["splits"].update(l50=[]), 'split "l50": "folds"'),
        (lambda c: c["splits"]["l50"]["folds"].append({"labeled": []}), "fold 2 needs the lists"),
        (lambda c: c["splits"]["l50"]["folds"].append("text"), "fold 2 needs the lists"),
        (lambda c: c["splits"]["l50"].pop("fraction"), '"fraction"'),
        (lambda c: c["splits"]["n2"].update(count="2"), '"count"'),
    ],
)
def test_another_structure_with_a_fitting_hash(base, change, word):
    edit(base, change, rehash=True)
    fails(base, "format of version 1", word)


def test_unusable_splits_are_not_written(base):
    before = (base / "splits_ssl.json").read_bytes()
    wrong = {
        "x": Split(0.5, 0, [Fold(["a1", "a2"], ["b1"], ["b2"])]),
        "y": Split(0.5, 0, [Fold([], ["b1", "b2"], ["c1"])]),
    }
    with pytest.raises(SemiSupervisedError) as caught:
        write_splits(str(base), Splits(DATASET, GROUPS, wrong))
    assert 'split "x", fold 0: groups divided between unlabeled and val: B' in str(caught.value)
    assert 'split "y", fold 0: no labelled case' in str(caught.value)
    assert (base / "splits_ssl.json").read_bytes() == before


def test_failed_write_keeps_the_old_file(base, monkeypatch):
    before = (base / "splits_ssl.json").read_bytes()
    monkeypatch.setattr("os.replace", lambda *args: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_splits(str(base), SPLITS)
    assert (base / "splits_ssl.json").read_bytes() == before
    assert sorted(p.name for p in base.iterdir()) == ["splits_ssl.json"]
