"""Files as editors save them."""

from __future__ import annotations

import errno

import pytest

from nnunet_ssl.data.folders import read_plans
from nnunet_ssl.data.split_folds import load_folds
from nnunet_ssl.data.text_files import read_json, read_text, read_yaml
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.report import load as report_load
from nnunet_ssl.evaluation.scoring.cases import _cases_of_summary
from nnunet_ssl.planning.plans_copy import _check_taken
from nnunet_ssl.system.failures import SystemFailure

TEXT = '{"M\u00fcller": ["\u738b"]}\r\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_that_says_what_it_is(tmp_path, encoding):
    path = tmp_path / "a b.c.json"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path) == TEXT
    assert read_json(path) == read_yaml(path) == {"M\u00fcller": ["\u738b"]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_nnunet_could_not_read_is_not_passed_on(tmp_path, encoding):
    path = tmp_path / "dataset.json"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(
        SemiSupervisedError, match=r"dataset.json starts with the byte-order mark(.|\n)*save it as UTF-8"
    ):
        read_json(path, nnunet_reads_it=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n"M\xfcller": 2}', r"not text in utf-8 \(byte 0xfc in line 2\).*\n.*Save it as UTF-8"),
        (TEXT.encode("utf-16-le"), "zero bytes"),
        (b"\x89PNG\r\n\x1a\n\0\0", "zero bytes"),
        (b"\xff\xfea", "not text in utf-16"),
        (b" \n", "empty"),
        (b'{"a": [1, 2,]}', "line 1 column 13.*the comma before it is one too many"),
        (b'{"a": 1,\n}', "line 2 column 1.*the comma before it is one too many"),
        (b"{'a': 1}", "not readable JSON.*line 1 column 2"),
        (b"[" * 100_000, "too many brackets"),
        (b"9" * 5000, "not readable JSON.*digits"),
        (b"[1]", "must hold a dictionary {...}, it holds a list"),
        (b"3", "must hold a dictionary {...}, it holds a number"),
        (b"null", "must hold a dictionary {...}, it holds null"),
    ],
)
def test_json_that_cannot_be_used(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(SemiSupervisedError, match=rf"{path} (.|\n)*{words}"):
        read_json(path, dict)


@pytest.mark.parametrize(
    "text", ["a: [1", "a: b: c", "a: 2024-13-45", "? [a]\n: 1", "&a [*a]", "[" * 3000, "a: !!python/name:os.system"]
)
def test_yaml_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SemiSupervisedError, match=f"{path} is neither YAML nor JSON"):
        read_yaml(path)


def test_what_is_no_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, words in {
        "nowhere": "does not exist",
        "loop": "cannot be read: Too many levels of symbolic links",
        ".": "cannot be read: Is a directory",
        "zero\0byte": "cannot be read",
    }.items():
        with pytest.raises(SemiSupervisedError, match=words):
            read_text(tmp_path / name)


LONG = "a" * 300 + ".json"


@pytest.mark.parametrize(
    "read",
    [
        read_text,
        read_json,
        read_yaml,
        read_plans,
        load_folds,
        report_load.read_json,
        pytest.param(lambda path: _cases_of_summary(path, ".nii.gz"), id="summary"),
        pytest.param(lambda path: _check_taken(path, {}, False), id="plans copy"),
    ],
)
def test_failures_of_the_system_are_told_as_such(tmp_path, read):
    """Whoever does without a file that is absent or damaged does not take it for one because it cannot be opened."""
    with pytest.raises(SystemFailure, match="too long for this file system") as caught:
        read(str(tmp_path / LONG))
    assert caught.value.errno == errno.ENAMETOOLONG
