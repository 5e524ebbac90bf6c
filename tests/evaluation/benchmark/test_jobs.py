"""Records on disk, and when a job counts as complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.benchmark.execute import prediction_words
from nnunet_ssl.evaluation.benchmark.jobs import (
    COMPLETE,
    FAILED,
    Job,
    Record,
    Stage,
    is_complete,
    job_folder,
    read_benchmark,
    read_record,
    write_manifest,
    write_record,
)

JOB = Job("Dataset004_X", "2d", "P_n6_s0_abcdef", "P", "T", "n6", 6, 10, 1, 2, {"split": "n6"}, "abcdef0123")


def record_of(job: Job, **changes) -> Record:
    record = Record({}, COMPLETE, "cpu", job.settings, job.settings_sha256, None, "2025-01-01", "/r", {}, None, "h")
    return replace(record, **changes)


def finished(output: Path, *names: str) -> None:
    folder = Path(job_folder(str(output), JOB.id))
    for name in names or ("evaluation.json", "evaluation.csv"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_the_id():
    assert JOB.id == "Dataset004_X__2d__T__n6__fold1__seed2"


def test_a_record_reads_as_it_was_written(tmp_path: Path):
    finished(tmp_path)
    record = record_of(JOB, stages=[Stage("train", ["a", "b"], "2025", 0, 1.5)], peak_memory_mb=3.5)
    write_record(str(tmp_path), JOB.id, record)
    assert read_record(str(tmp_path), JOB.id) == record


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": 2}', '{"version": 1}', '{"version": 1, "stages": [3]}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str):
    finished(tmp_path)
    Path(job_folder(str(tmp_path), JOB.id), "record.json").write_text(text)
    assert read_record(str(tmp_path), JOB.id) is None
    assert not is_complete(str(tmp_path), JOB)


def test_complete_needs_state_settings_and_outputs(tmp_path: Path):
    out = str(tmp_path)
    finished(tmp_path)
    write_record(out, JOB.id, record_of(JOB))
    assert is_complete(out, JOB)
    assert not is_complete(out, replace(JOB, settings_sha256="other"))
    write_record(out, JOB.id, record_of(JOB, state=FAILED))
    assert not is_complete(out, JOB)
    write_record(out, JOB.id, record_of(JOB))
    Path(job_folder(out, JOB.id), "evaluation.csv").unlink()
    assert not is_complete(out, JOB)


def test_complete_with_a_test_set(tmp_path: Path):
    out, with_test = str(tmp_path), replace(JOB, test_images="/i", test_labels="/l")
    finished(tmp_path)
    write_record(out, JOB.id, record_of(JOB, test={"images": "/i", "labels": "/l"}))
    assert not is_complete(out, with_test)
    finished(tmp_path, "test/evaluation.json", "test/evaluation.csv")
    assert is_complete(out, with_test)
    assert not is_complete(out, replace(with_test, test_labels="/other"))
    assert not is_complete(out, JOB)


def test_the_command_that_predicts():
    where = ["-i", "/i", "-o", "/o", "-d", "Dataset004_X", "-c", "2d", "-p", "P_n6_s0_abcdef", "-tr", "T", "-f", "1"]
    assert prediction_words(JOB, "/i", "/o") == ["nnUNetv2_predict", *where, "-chk", "checkpoint_final.pth"]
    of_paper = replace(JOB, settings={"prediction": {"stride": [4, 4], "checkpoint": "best"}})
    assert prediction_words(of_paper, "/i", "/o") == ["nnunet_ssl", "predict-as-paper", *where]


def test_the_manifest_and_its_jobs(tmp_path: Path):
    write_manifest(str(tmp_path), {"device": "cpu", "datasets": [{"dataset": "4"}]}, [JOB])
    assert read_benchmark(str(tmp_path)) == ({"device": "cpu", "datasets": [{"dataset": "4"}]}, [JOB])
    assert json.loads((tmp_path / "manifest.json").read_text())["jobs"][0]["id"] == JOB.id


def test_no_manifest_and_one_of_others(tmp_path: Path):
    with pytest.raises(SemiSupervisedError, match="There is no benchmark in"):
        read_benchmark(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(SemiSupervisedError, match="was not written by"):
        read_benchmark(str(tmp_path))
