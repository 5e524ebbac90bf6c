"""Files with subjects and with lists of labelled cases."""

from __future__ import annotations

import json

import pytest

from nnunet_ssl.data.split_inputs import read_case_lists, read_groups
from nnunet_ssl.errors import SemiSupervisedError

CASES = ["a1", "a2", "b1"]
GROUPS = {"a1": "A", "a2": "A", "b1": "7"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("g.json", json.dumps(GROUPS)),
        ("g.json", '{"a1": "A", "a2": "A", "b1": 7}'),
        ("g.csv", "case,subject\na1,A\na2,A\nb1,7\n"),
        ("g.csv", "a1,A\na2, A\n\nb1,7"),
        ("g.csv", "\ufeffCase,Subject\r\na1,A\r\na2,A\r\nb1,7\r\n"),
        ("g.csv", "subject,age,case\nA,50,a1\nA,51,a2\n7,9,b1\n"),
    ],
)
def test_groups(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    assert read_groups(str(path), CASES) == GROUPS


@pytest.mark.parametrize("name", ["g.json", "g.csv"])
def test_all_problems_with_groups_are_listed(tmp_path, name):
    pairs = [("a1", "A"), ("a1", "B"), ("a2", ""), ("x", "A"), ("y", "B")]
    path = tmp_path / name
    if name.endswith("json"):
        path.write_text("{" + ", ".join(f'"{case}": "{subject}"' for case, subject in pairs) + "}")
    else:
        path.write_text("\n".join(",".join(pair) for pair in pairs))
    with pytest.raises(SemiSupervisedError) as caught:
        read_groups(str(path), CASES)
    for problem in (
        "a1: more than one subject (A, B)",
        "a2: without subject",
        "b1: missing in the file",
        "x: not a labelled case",
        "y: not a labelled case",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("g.json", "[]", "must hold"),
        ("g.json", '["a1"]', "must hold"),
        ("g.json", '{"a1": ["A"]}', "must hold"),
        ("g.json", '{"a1": {"a": "b"}}', "must hold"),
        ("g.json", "{", "not readable JSON"),
        ("g.csv", "a1;A\na2;A", "two columns"),
        ("g.csv", "case,subject,age\na1,A,3\na2", "incomplete rows"),
    ],
)
def test_unreadable_groups(tmp_path, name, text, word):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(SemiSupervisedError, match=word):
        read_groups(str(path), CASES)


@pytest.mark.parametrize("reader", [read_groups, read_case_lists])
def test_missing_file(tmp_path, reader):
    with pytest.raises(SemiSupervisedError, match=r"nothing.json does not exist"):
        reader(str(tmp_path / "nothing.json"), CASES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(["a1", "b1"], {"list": ["a1", "b1"]}), ({"p5": ["a1"], "p20": CASES}, {"p5": ["a1"], "p20": CASES})],
)
def test_lists(tmp_path, content, expected):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(content))
    assert read_case_lists(str(path), CASES) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"p": ["a1", "x", "y"]}, ["p: x is not a labelled", "p: y is not a labelled"]),
        ({"p": ["a1", "a1"], "q": []}, ["p: a1 is named more than once", "q: no case"]),
        ({"fractions": {"25%": {"labelled": ["a1"]}}}, ["must hold a list"]),
        ([1], ["must hold a list"]),
        ({}, ["no list"]),
    ],
)
def test_unusable_lists(tmp_path, content, words):
    path = tmp_path / "lists.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SemiSupervisedError) as caught:
        read_case_lists(str(path), CASES)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "name"), [(read_groups, "g.csv"), (read_groups, "g.json"), (read_case_lists, "l.json")]
)
def test_files_in_another_encoding(tmp_path, reader, name):
    path = tmp_path / name
    path.write_bytes("case,subject\na1,M\u00fcller\n".encode("latin-1"))
    with pytest.raises(
        SemiSupervisedError, match=rf"{name} is not text in utf-8 \(byte 0xfc in line 2\)(.|\n)*as UTF-8"
    ):
        reader(str(path), CASES)


def test_csv_that_python_cannot_read(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text("case,subject\na1," + "A" * 200_000)
    with pytest.raises(SemiSupervisedError, match=r"g.csv is not readable CSV \(field larger"):
        read_groups(str(path), CASES)


def test_line_numbers_are_those_of_an_editor(tmp_path):
    path = tmp_path / "g.csv"
    path.write_text('\ncase,subject,remark\n\na1,A,"two\nlines"\n\na2\nb1,7,\n')
    with pytest.raises(SemiSupervisedError) as caught:
        read_groups(str(path), CASES)
    assert str(caught.value).splitlines()[1:] == ["  - line 7: a2"]
