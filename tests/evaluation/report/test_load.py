from __future__ import annotations

import json

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.evaluation.report.load import load_benchmark
from tests.evaluation.report import synthetic
from tests.evaluation.report.synthetic import CONTROL, DATASET, row, write_evaluation

SMALL = {"trainers": (CONTROL,), "splits": {"n6": (6, 10)}, "failed": ()}
FIRST = f"{DATASET}__3d_fullres__{CONTROL}__n6__fold0__seed0"


def the_job(folder, name=FIRST):
    return next(job for job in load_benchmark(str(folder)).runs if job.name == name)


@pytest.fixture
def folder(tmp_path):
    return synthetic.build(tmp_path, **SMALL)


def test_values_and_jobs(folder):
    benchmark = load_benchmark(str(folder))
    assert [job.state for job in benchmark.runs] == ["complete"] * 4
    assert len(benchmark.values) == 4 * 2 * 2
    job = benchmark.runs[0]
    assert (job.name, job.fold, job.seed, job.labeled, job.plans) == (FIRST, "0", "0", 6, "nnUNetPlans")
    assert job.evaluations["validation"]["unit"] == "mm" and "cases" not in job.evaluations["validation"]


def test_names_stay_text(folder):
    write_evaluation(folder / "jobs" / FIRST, [{**row("001", "ball", None), "class": "NA"}])
    values = load_benchmark(str(folder)).values
    first = values[values["job"] == FIRST].iloc[0]
    assert (first["case"], first["class"]) == ("001", "NA")
    assert first["dice"] != first["dice"]


def test_no_benchmark(tmp_path):
    with pytest.raises(SemiSupervisedError, match="holds no benchmark"):
        load_benchmark(str(tmp_path))


def change(folder, name=FIRST, **values):
    path = folder / "jobs" / name / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_job_without_record_is_not_started(folder):
    (folder / "jobs" / FIRST / "record.json").unlink()
    job = the_job(folder)
    assert (job.state, job.reason) == ("not started", "start the benchmark again")
    assert (job.trainer, job.labeled) == (CONTROL, 6)


def test_a_damaged_record(folder):
    (folder / "jobs" / FIRST / "record.json").write_text('{"version": 1, "job')
    job = the_job(folder)
    assert job.state == "incomplete" and "record.json is not readable" in job.reason


def test_a_damaged_record_without_manifest_is_known_by_its_name(folder):
    (folder / "manifest.json").unlink()
    (folder / "jobs" / FIRST / "record.json").write_text("[]")
    job = the_job(folder)
    assert (job.dataset, job.trainer, job.split, job.fold, job.seed) == (DATASET, CONTROL, "n6", "0", "0")
    assert job.state == "incomplete"


def test_a_result_of_other_settings_is_not_shown(folder):
    change(folder, settings_sha256="other")
    job = the_job(folder)
    assert job.state == "incomplete" and "settings other than" in job.reason
    assert FIRST not in set(load_benchmark(str(folder)).values["job"])


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_an_unfinished_job_has_a_reason(folder, state):
    change(folder, state=state)
    job = the_job(folder)
    assert job.state == state and job.reason


def test_a_complete_job_needs_its_evaluation(folder):
    (folder / "jobs" / FIRST / "evaluation.csv").write_text("case,dice\na,1\n")
    job = the_job(folder)
    assert job.state == "incomplete" and "no usable evaluation of the validation cases" in job.reason
    (folder / "jobs" / FIRST / "evaluation.csv").unlink()
    assert the_job(folder).state == "incomplete"
    assert FIRST not in set(load_benchmark(str(folder)).values["job"])


def test_jobs_that_the_manifest_no_longer_has_are_left_out(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["jobs"] = [job for job in manifest["jobs"] if job["fold"] == 1]
    path.write_text(json.dumps(manifest))
    benchmark = load_benchmark(str(folder))
    assert {job.fold for job in benchmark.runs} == {"1"} == set(benchmark.values["fold"])
    assert len(benchmark.left_out) == 2 and FIRST in benchmark.left_out


def test_units_are_not_mixed(folder):
    write_evaluation(folder / "jobs" / FIRST, [row("case_0", "ball", 0.5)], unit="voxel")
    with pytest.raises(SemiSupervisedError, match="evaluated in different ways") as error:
        load_benchmark(str(folder))
    assert FIRST in str(error.value) and "unit voxel" in str(error.value) and "unit mm" in str(error.value)
