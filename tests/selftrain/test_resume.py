"""Killed at any moment, the same command goes on and repeats nothing that is finished."""

from __future__ import annotations

import errno
import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from nnunet_ssl.evaluation.benchmark import job_run
from nnunet_ssl.selftrain import student_dataset
from nnunet_ssl.selftrain.keys import Keys
from tests.selftrain.fakes import WORDS, Place, run, run_and_kill

SELECT = ("--select", "agreement", "--threshold", "0.5")
ONE = (*WORDS, "--rounds", "1", *SELECT)
TWO = (*WORDS, "--rounds", "2", *SELECT)


def results(place: Place) -> dict[str, int]:
    """File of a result -> time of its last change: everything but logs, locks and records."""
    folders = [place.out, *(place.root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"))]
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()]
    passing = ("log.txt", "record.json", "selftrain.json", ".lock", ".tmp")
    return {str(file): file.stat().st_mtime_ns for file in files if not file.name.endswith(passing)}


def test_killed_after_every_step(place: Place, capsys):
    """SIGKILL as soon as a step is complete, again and again: the files of finished steps never change again."""
    steps = [*Keys(begun(place, ONE)).steps]
    assert len(steps) == 9
    finished: dict[str, int] = {}
    for done in steps[:-1]:
        run_and_kill(place, ONE, lambda step=done: place.state(step) == "complete")
        before = results(place)
        assert all(before[file] == moment for file, moment in finished.items())
        finished |= of_complete_steps(place, before)
    assert run(place, *ONE) == 0
    after = results(place)
    assert all(after[file] == moment for file, moment in finished.items()) and len(finished) > 30
    assert [place.state(step) for step in steps] == ["complete"] * 9
    assert run(place, *ONE) == 0
    assert results(place) == after  # nothing is left to do


def begun(place: Place, words: tuple[str, ...]):
    """The run before its first step."""
    assert run(place, *words, "--write", "sh") == 0
    return place.settled()


def of_complete_steps(place: Place, files: dict[str, int]) -> dict[str, int]:
    """The files that belong to complete steps."""
    run_of = place.settled()
    keys = Keys(run_of)
    folders: list[str] = []
    for step in keys.steps.values():
        if not keys.is_complete(step):
            continue
        folders.append(str(place.out / "jobs" / step.id))
        if step.kind in ("train", "control"):
            folders.append(place.record(step.id)["results_folder"])
        elif step.kind == "predict":
            folders.append(run_of.teacher_folder(step.round, step.member))
        elif step.kind == "select":
            folders += [run_of.labels_folder(step.round), run_of.selection_file(step.round)]
        elif step.kind == "preprocess":
            folders += [run_of.student_base(step.round), run_of.student_raw(step.round)]
    return {file: moment for file, moment in files.items() if file.startswith(tuple(folders))}


def test_a_prediction_that_was_cut_off_keeps_what_it_has(place: Place, capsys):
    place.order("nnUNetv2_predict", "wait")
    folder = place.out / "round_1" / "teacher_0"
    run_and_kill(place, ONE, lambda: len([*folder.glob("*.nii.gz")]) == 1)
    (whole,) = folder.glob("*.nii.gz")
    moment = whole.stat().st_mtime_ns
    content = gzip.compress(bytes(1000))
    (folder / "tiny_004.nii.gz").write_bytes(content[: len(content) // 2])  # the last file of a killed process
    place.order("nnUNetv2_predict", None)
    assert run(place, *ONE) == 0
    assert whole.stat().st_mtime_ns == moment
    assert len(gzip.decompress((folder / "tiny_004.nii.gz").read_bytes())) > 7000


def test_a_training_that_was_cut_off_continues(place: Place, capsys):
    place.order("nnUNetv2_train", "wait")
    run_and_kill(place, ONE, lambda: any(place.root.glob("nnUNet_results/*/*/fold_0/checkpoint_latest.pth")))
    place.order("nnUNetv2_train", None)
    assert run(place, *ONE) == 0
    first, again = [line for line in place.calls() if line.startswith("nnUNetv2_train")][:2]
    assert first == again and again.endswith("--c")


def test_a_changed_selection_leads_to_new_data_and_new_students(place: Place, capsys):
    """A person drops a case after a look: nothing before it is repeated, everything after it is, under a new name."""
    assert run(place, *TWO) == 0
    before = results(place)
    file = place.out / "round_1" / "selection.json"
    content = json.loads(file.read_text())
    dropped = next(entry for entry in content["cases"] if entry["kept"])
    dropped["kept"] = False
    file.write_text(json.dumps(content))
    calls = len(place.calls())
    assert run(place, *TWO) == 0
    words = Counter(line.split()[0].removeprefix("nnUNetv2_") for line in place.calls()[calls:])
    # round 1: data, two students; round 2: two predictions, data, the last student
    data = {"extract_fingerprint": 2, "move_plans_between_datasets": 2, "preprocess": 2}
    assert words == {**data, "train": 3, "predict": 2}
    after = results(place)
    kept = [f for f in before if "nnUNet_results" in f or "round_1/teacher" in f]
    assert all(after[name] == before[name] for name in kept)  # former students stay where they are
    students = {path.name for path in place.root.glob("nnUNet_results/*selftrain_1/*")}
    assert len(students) == 4  # two seeds, each with the former and the present selection
    folds = json.loads(Path(place.settled().student_base(1), "splits_final.json").read_text())
    assert dropped["case"] not in folds[0]["train"]


def test_no_step_starts_with_a_stale_selection(place: Place, capsys):
    """Another threshold: what followed from the former selection no longer counts, what came before it does."""
    assert run(place, *TWO) == 0
    assert run(place, *WORDS, "--rounds", "2", "--threshold", "1", "--min-cases", "4") == 1
    assert "3 of 6 cases are kept, fewer than --min-cases 4" in place.record("round1__select")["error"]
    keys = Keys(place.settled())
    complete = {step.id for step in keys.steps.values() if keys.is_complete(step)}
    first = {f"round{k}__{kind}__{j}" for k, kind in ((0, "train"), (1, "predict")) for j in (0, 1)}
    assert complete == {*first, "round2__control"}
    calls = len(place.calls())
    assert run(place, *TWO) == 0  # the former threshold again: the very same selections, data and names
    assert len([c for c in place.calls()[calls:] if c.startswith("nnUNetv2_train")]) == 0


@pytest.mark.parametrize("command", ["nnUNetv2_preprocess", "nnUNetv2_train"])
def test_a_step_that_fails_stops_what_needs_it_and_is_told(place: Place, capsys, command: str):
    place.order(command, "fail")
    assert run(place, *ONE) == 1
    output = capsys.readouterr().out
    assert "FAILED" in output and "RuntimeError: made to fail" in output
    waiting = place.state("round1__train__0" if command == "nnUNetv2_preprocess" else "round1__predict__0")
    assert waiting == "waiting"
    place.order(command, None)
    assert run(place, *ONE) == 0


@pytest.mark.parametrize(("module", "function"), [(student_dataset, "write_json"), (job_run, "write_record")])
def test_a_full_disk_is_told_and_the_same_command_goes_on(place: Place, monkeypatch, capsys, module, function: str):
    """The disk has no room for the students' dataset, or not even for the record of that step."""
    write = getattr(module, function)

    def full(*arguments: object, **options: object) -> None:
        if "round1__dataset" in arguments or module is student_dataset:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, full)
        if module is student_dataset:
            assert run(place, *ONE) == 1
            assert "No space left on device" in place.record("round1__dataset")["error"]
        else:
            with pytest.raises(OSError, match="No space left on device"):
                run(place, *ONE)
    calls = len(place.calls())
    assert run(place, *ONE) == 0
    words = [line.split()[0] for line in place.calls()[calls:]]
    assert "nnUNetv2_predict" not in words and words.count("nnUNetv2_train") <= 2  # the student, perhaps the control
