"""Jobs on this computer: what is run, skipped, continued and recorded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from nnunet_ssl.evaluation.benchmark import command, run_local
from tests.evaluation.benchmark.fakes import (
    CONTROL,
    DATASET,
    MEAN_TEACHER,
    SKCDF,
    TRAINING,
    WORDS,
    Place,
    evaluations,
    run,
)
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "PERIOD", 0.02)
    monkeypatch.setattr(run_local, "REFRESH", 0.02)
    monkeypatch.setattr(run_local, "RETRY", 0.2)


def start(place: Place, *words: str) -> int:
    return run(*WORDS, *TRAINING, "-o", str(place.out), *words)


def stages(place: Place, trainer: str) -> list[str]:
    return [stage["name"] for stage in place.record(trainer)["stages"]]


def test_a_benchmark_runs_to_its_table(place: Place, capsys):
    assert start(place) == 0
    output = capsys.readouterr().out
    assert f"complete: {place.job(MEAN_TEACHER)}   [2 complete]" in output
    assert "2 jobs: 2 complete.\n\nreport: " in output
    record = place.record(MEAN_TEACHER)
    plans = record["job"].pop("plans")
    assert plans.startswith("nnUNetPlans_n2_s0_") and record["settings_sha256"].startswith(plans[-6:])
    assert record["job"] == {
        "dataset": DATASET,
        "configuration": "3d_fullres",
        "base_plans": "nnUNetPlans",
        "trainer": MEAN_TEACHER,
        "split": "n2",
        "labeled": 2,
        "withheld": 2,
        "fold": 0,
        "seed": 0,
    }
    train, evaluate = record["stages"]
    model = f"{DATASET} 3d_fullres 0 -p {plans} -tr {MEAN_TEACHER}"
    assert " ".join(train["command"]) == f"nnUNetv2_train {model} -device cpu --c"
    assert evaluate["command"][:2] == ["nnunet_ssl", "evaluate"]
    assert evaluate["command"][-3:] == ["--cases", "tiny_000", "tiny_001"]
    assert train["exit_code"] == evaluate["exit_code"] == 0 and train["seconds"] > 0
    assert record["seconds"] == pytest.approx(train["seconds"] + evaluate["seconds"], abs=0.01)
    assert (record["state"], record["error"], record["device"], record["version"]) == ("complete", None, "cpu", 1)
    assert record["steps"] == 20 and record["seconds_per_step"] == pytest.approx(0.2)
    assert record["peak_memory_mb"] > 1 and record["peak_gpu_memory_mb"] is None
    assert set(record["versions"]) == {"nnunet_ssl", "nnunetv2", "torch", "monai", "python"}
    assert record["results_folder"].endswith(f"/{MEAN_TEACHER}__{plans}__3d_fullres/fold_0")
    assert record["settings"]["training"] == {"num_epochs": 2, "num_iterations_per_epoch": 10, "seed": 0}
    log = (place.out / "jobs" / place.job(MEAN_TEACHER) / "log.txt").read_text()
    assert log.startswith(f"$ nnUNetv2_train {model}") and ": Epoch 1\n" in log


def test_what_is_complete_is_skipped_whatever_order_or_length(place: Place, capsys):
    assert start(place) == 0
    before = (place.out / "jobs" / place.job(MEAN_TEACHER) / "record.json").read_bytes()
    assert run("-o", str(place.out)) == 0  # from the manifest in the folder
    assert start(place, "-tr", SKCDF, MEAN_TEACHER) == 0
    assert (place.out / "jobs" / place.job(MEAN_TEACHER) / "record.json").read_bytes() == before
    output = capsys.readouterr().out
    assert "2 jobs, 2 of them already complete" in output and "3 jobs, 2 of them already complete" in output
    assert stages(place, SKCDF) == ["train", "evaluate"]


def test_a_lost_evaluation_is_made_again_without_training(place: Place):
    start(place)
    (place.out / "jobs" / place.job(MEAN_TEACHER) / "evaluation.csv").unlink()
    assert start(place) == 0
    assert stages(place, MEAN_TEACHER) == ["train", "evaluate", "evaluate"]


def test_a_validation_that_was_cut_off_is_run_again(place: Place):
    start(place)
    folder = Path(place.record(MEAN_TEACHER)["results_folder"])
    (folder / "validation" / "summary.json").write_text('{"metric_per_case": [')
    (place.out / "jobs" / place.job(MEAN_TEACHER) / "evaluation.csv").unlink()
    assert start(place) == 0
    assert stages(place, MEAN_TEACHER) == ["train", "evaluate", "train", "evaluate"]
    assert (place.out / "jobs" / place.job(MEAN_TEACHER) / "log.txt").read_text().count("Epoch 0") == 1


def test_a_failed_job_is_named_and_the_others_complete(place: Place, capsys):
    place.order(CONTROL, "fail")
    assert start(place) == 1
    record = place.record(CONTROL)
    assert record["state"] == "failed" and record["stages"][0]["exit_code"] == 1
    assert record["error"].endswith("RuntimeError: made to fail\nnnUNetv2_train ended with code 1")
    assert place.record(MEAN_TEACHER)["state"] == "complete"
    output = capsys.readouterr().out
    assert f"FAILED: {place.job(CONTROL)}\n" in output and "  RuntimeError: made to fail" in output
    assert "2 jobs: 1 failed, 1 complete." in output
    place.order(CONTROL, None)
    assert run("-o", str(place.out)) == 0
    assert place.record(CONTROL)["error"] is None
    assert stages(place, CONTROL) == ["train", "train", "evaluate"] and len(stages(place, MEAN_TEACHER)) == 2


def test_a_training_that_leaves_nothing_has_failed(place: Place):
    (place.bin / "nnUNetv2_train").write_text("#!/bin/sh\necho bye\n")
    assert start(place) == 1
    assert "ended without an error but left no result" in place.record(CONTROL)["error"]


def test_an_evaluation_that_fails(place: Place, monkeypatch):
    from nnunet_ssl.evaluation.benchmark.evaluator import Evaluator

    def broken(self, task, log, stop):
        raise ValueError("no such class")

    monkeypatch.setattr(Evaluator, "evaluate", broken)
    assert start(place) == 1
    record = place.record(CONTROL)
    assert record["error"].endswith("ValueError: no such class")
    assert [stage["exit_code"] for stage in record["stages"]] == [0, 1]


def test_changed_settings_are_trained_anew_and_old_results_stay(place: Place):
    start(place)
    old = place.record(MEAN_TEACHER)
    assert run(*WORDS, "--training", "num_epochs=5", "-o", str(place.out)) == 0
    new = place.record(MEAN_TEACHER)
    assert stages(place, MEAN_TEACHER) == ["train", "evaluate"]
    assert new["job"]["plans"] != old["job"]["plans"] and new["results_folder"] != old["results_folder"]
    assert Path(old["results_folder"], "checkpoint_final.pth").is_file()
    assert (place.out / "jobs" / place.job(MEAN_TEACHER) / "log.txt").read_text().count("$ nnUNetv2_train") == 1


def test_records_of_other_settings_do_not_count_while_they_wait(place: Place):
    start(place)
    place.order(CONTROL, "fail")
    place.order(MEAN_TEACHER, "fail")
    assert run(*WORDS, "--training", "num_epochs=5", "-o", str(place.out)) == 1
    assert place.record(MEAN_TEACHER)["state"] == "failed"
    run(*WORDS, "--training", "num_epochs=6", "-o", str(place.out), "--write", "sh")
    assert place.record(MEAN_TEACHER)["error"] == "made with other settings; to be run again"


def test_a_test_set_is_predicted_and_evaluated(place: Place):
    images, labels = place.root / "imagesTs", place.root / "labelsTs"
    images.mkdir()
    shutil.copytree(place.base / "gt_segmentations", labels)
    for label in labels.iterdir():
        shutil.copy(label, images / label.name.replace(".nii.gz", "_0000.nii.gz"))
    start(place)
    words = ("--test-images", str(images), "--test-labels", str(labels))
    assert start(place, *words) == 0
    assert stages(place, MEAN_TEACHER) == ["train", "evaluate", "predict", "evaluate", "evaluate"]
    record = place.record(MEAN_TEACHER)
    command = " ".join(record["stages"][2]["command"])
    assert f"-i {images}" in command and "-chk checkpoint_final.pth" in command and command.endswith("-device cpu")
    folder = place.out / "jobs" / place.job(MEAN_TEACHER)
    assert len((folder / "test" / "evaluation.csv").read_text().splitlines()) == 7
    assert len((folder / "evaluation.csv").read_text().splitlines()) == 3
    (folder / "test" / "evaluation.csv").unlink()
    assert start(place, *words) == 0
    assert stages(place, MEAN_TEACHER)[5:] == ["evaluate", "evaluate"]


def test_two_benchmarks_with_the_same_training_share_it(place: Place):
    assert start(place) == 0
    assert run(*WORDS, *TRAINING, "-o", str(place.root / "second")) == 0
    record = json.loads((place.root / "second" / "jobs" / place.job(MEAN_TEACHER) / "record.json").read_text())
    assert [stage["name"] for stage in record["stages"]] == ["evaluate"] and record["steps"] == 20


def test_a_job_that_another_process_runs_is_waited_for_not_run_twice(place: Place):
    """The other process finishes it meanwhile."""
    assert start(place) == 0
    folder = place.out / "jobs" / place.job(MEAN_TEACHER)
    finished = (folder / "record.json").read_bytes()
    (folder / "record.json").unlink()
    lock = FileLock(str(folder / ".lock"), thread_local=False)
    lock.acquire()

    def finish():
        (folder / "record.json").write_bytes(finished)
        lock.release()

    timer = threading.Timer(1.0, finish)
    timer.start()
    assert start(place) == 0
    timer.join()
    assert (folder / "record.json").read_bytes() == finished


def test_a_single_job(place: Place, capsys):
    start(place, "--write", "sh")
    capsys.readouterr()
    assert run("--job", place.job(MEAN_TEACHER), "-o", str(place.out)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"log: {place.out}/jobs/{place.job(MEAN_TEACHER)}/log.txt",
        f"complete: {place.job(MEAN_TEACHER)}",
    ]
    assert not (place.out / "jobs" / place.job(CONTROL)).exists()
    place.order(CONTROL, "fail")
    assert run("--job", place.job(CONTROL), "-o", str(place.out)) == 1
    assert "made to fail" in capsys.readouterr().err
    with FileLock(str(place.out / "jobs" / place.job(CONTROL) / ".lock")):
        assert run("--job", place.job(CONTROL), "-o", str(place.out)) == 1
    assert "is being run by another process" in capsys.readouterr().err


def test_one_job_per_gpu(place: Place, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert run_local.slots("cuda", None) == ["3", "5"]
    assert run_local.slots("cuda", 3) == ["3", "5", "3"]
    assert run_local.slots("cpu", 2) == [None, None]
    (place.bin / "nnUNetv2_train").write_text('#!/bin/sh\necho "GPU $CUDA_VISIBLE_DEVICES"\nsleep 0.5\nexit 1\n')
    words = [*WORDS[:-1], "cuda", *TRAINING, "-o", str(place.out)]
    assert run(*words) == 1
    used = {place.record(t)["error"].splitlines()[1] for t in (CONTROL, MEAN_TEACHER)}
    assert used == {"GPU 3", "GPU 5"}
    assert place.record(CONTROL)["stages"][0]["command"][-2] == "cuda"


def test_no_gpu(place: Place, monkeypatch, capsys):
    from nnunet_ssl.errors import SemiSupervisedError

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SemiSupervisedError, match="PyTorch finds none"):
        run(*WORDS[:-1], "cuda", "-o", str(place.out))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_jobs_and_is_on_record(place: Place, number: signal.Signals, capsys, monkeypatch):
    monkeypatch.setattr(run_local, "SIGNALS", (number,))
    former = signal.signal(number, signal.default_int_handler)  # a shell may ignore SIGINT for its background jobs
    place.order(CONTROL, "wait")
    log = place.out / "jobs" / place.job(CONTROL) / "log.txt"

    def later():
        until(lambda: log.exists() and "Epoch 0" in log.read_text())
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=later)
    thread.start()
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):  # which the command line explains
            start(place)
    else:
        assert start(place) == 128 + signal.SIGTERM
        assert "ended by SIGTERM; start it again to continue" in capsys.readouterr().err
    thread.join()
    signal.signal(number, former)
    record = place.record(CONTROL)
    assert record["state"] == "interrupted" and record["stages"][0]["exit_code"] is None
    assert record["stages"][0]["seconds"] > 0
    assert not (place.out / "jobs" / place.job(MEAN_TEACHER)).exists()
    place.order(CONTROL, None)
    assert run("-o", str(place.out)) == 0
    assert stages(place, CONTROL) == ["train", "train", "evaluate"]


def test_under_nohup_the_end_of_the_terminal_changes_nothing():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with run_local.stopped_by_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.1)
    finally:
        signal.signal(signal.SIGHUP, former)


@pytest.mark.slow
def test_killed_in_the_middle_and_started_again_it_ends_with_the_same_table(place: Place):
    place.order(MEAN_TEACHER, "wait")
    words = (*TRAINING, "-f", "0", "1", "--processes", "2")
    process = place.start(*WORDS, *words)
    job = place.out / "jobs" / place.job(MEAN_TEACHER, fold=1)
    until(lambda: (job / "log.txt").exists() and "Epoch 0" in (job / "log.txt").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert place.record(MEAN_TEACHER)["state"] == "running"
    done = {p: p.read_bytes() for p in place.out.glob(f"jobs/*{CONTROL}*/record.json")}
    assert len(done) == 2 and all(b'"complete"' in content for content in done.values())
    place.order(MEAN_TEACHER, None)

    assert start(place, *words) == 0
    assert all(path.read_bytes() == content for path, content in done.items())
    record = place.record(MEAN_TEACHER, fold=1)
    cut_off, again = record["stages"][:2]
    assert cut_off["exit_code"] is None and cut_off["seconds"] >= 0 and again["exit_code"] == 0
    log = (job / "log.txt").read_text()
    assert log.count("Epoch 0") == 1 and log.count("Epoch 1") == 1  # continued, not begun again

    table = evaluations(place.out)
    assert len(table) == 4
    shutil.rmtree(place.root / "nnUNet_results")
    (place.root / "nnUNet_results").mkdir()
    assert run(*WORDS, *words, "-o", str(place.root / "uninterrupted")) == 0
    assert evaluations(place.root / "uninterrupted") == table
