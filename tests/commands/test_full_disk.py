"""Every command that writes says that there is no space left, and where."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data import file_damage
from nnunet_ssl.demo.options import Options
from nnunet_ssl.demo.runner import prepare_folder
from nnunet_ssl.demo.synthetic import Sizes, write_dataset
from nnunet_ssl.system.failures import SystemFailure
from nnunet_ssl.system.run_lock import LOCK
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.evaluation.benchmark.fakes import CONTROL, WORDS, install, make_place
from tests.evaluation.report import synthetic
from tests.evaluation.scoring.folders import dataset_json, volume, write, write_json
from tests.full_disk import small_disk
from tests.running import make_trainer


def no_space(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch):
    """Call it: from then on nothing reaches the disk."""
    return lambda: monkeypatch.setattr(os, "fsync", no_space)


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock")}


def refused(words: list[str], folder: Path, capsys) -> str:
    """Run the command; what it says. It may not leave anything new in the folder."""
    before = files(folder)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert f"nnunet_ssl {words[0]}: No space left in {folder}" in error and "Traceback" not in error
    assert files(folder) == before
    return error


def test_splits_and_plans(make_dataset, full, capsys):
    base = make_dataset(unlabeled=0)
    full()
    refused(["splits", "-d", "901", "--counts", "2"], base, capsys)
    refused(["plans", "-d", "901", "--name", "short", "--training", "num_epochs=2"], base, capsys)


@pytest.fixture
def predictions(tmp_path: Path) -> list[str]:
    for part in ("labels", "predictions"):
        write(tmp_path / part / "a.nii.gz", volume(), (1.0, 1.0, 1.0))
    write_json(tmp_path / "dataset.json", dataset_json())
    folders = ["-ref", str(tmp_path / "labels"), "-pred", str(tmp_path / "predictions")]
    return ["evaluate", *folders, "-djfile", str(tmp_path / "dataset.json")]


def test_evaluate(predictions, tmp_path, full, capsys):
    full()
    refused(predictions, tmp_path / "predictions", capsys)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.EIO, errno.EMFILE])
def test_evaluate_does_not_blame_files_that_the_system_withholds(predictions, monkeypatch, capsys, number):
    def fail(path: str) -> str:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(file_damage, "_damage", fail)
    assert main(predictions) == 1
    error = capsys.readouterr().err
    assert "then do the same again." in error
    assert "Correct these files" not in error and "cannot be" not in error


def test_report(tmp_path, full, capsys):
    folder = synthetic.build(tmp_path / "benchmark")
    full()
    refused(["report", str(folder)], folder / "report", capsys)


def test_benchmark(make_dataset, monkeypatch, capsys):
    place = make_place(make_dataset(unlabeled=0))
    install(place.bin, monkeypatch.setattr)
    words = ["benchmark", *WORDS, "--training", "num_epochs=2", "num_iterations_per_epoch=10", "-o", str(place.out)]
    with monkeypatch.context() as patch:  # not even begun
        patch.setattr(os, "fsync", no_space)
        assert main(words) == 1
        assert f"No space left in {place.base}" in capsys.readouterr().err
    original = os.replace

    def until_full(source: str, target: str) -> None:
        if str(target).endswith("record.json") and "jobs" in str(target):
            no_space(0)
        original(source, target)

    with monkeypatch.context() as patch:  # in the middle of a job
        patch.setattr(os, "replace", until_full)
        assert main(words) == 1
        error = capsys.readouterr().err
        assert f"nnunet_ssl benchmark: No space left in {place.out}/jobs/" in error and "Traceback" not in error
        assert not list(place.out.rglob("*.tmp"))
    assert main(words) == 0
    assert place.record(CONTROL)["state"] == "complete"


def test_the_demos_images(tmp_path):
    """ITK writes half a file and says nothing."""
    with small_disk(tmp_path, 40):
        with pytest.raises(SystemFailure, match=f"No space left in {tmp_path}"):
            write_dataset(tmp_path, "Dataset999_Demo", 0, Sizes(1, 1, 1))
        assert list(tmp_path.iterdir()) == []


def test_the_demos_state(tmp_path, full):
    options = Options(tmp_path / "demo")
    full()
    with pytest.raises(SystemFailure, match=f"No space left in {options.output}"):
        prepare_folder(options.output, overwrite=False)


@pytest.mark.usefixtures("no_figures")
def test_a_training(make_dataset, full):
    trainer = make_trainer(make_dataset(unlabeled=0), nnUNetTrainerSupervised)
    trainer.initialize()
    full()
    with pytest.raises(SystemFailure, match=f"No space left in {trainer.output_folder}"):
        trainer.run_training()
    left = {p.name for p in Path(trainer.output_folder).iterdir()}
    assert LOCK not in left and not any(name.endswith((".pth", ".tmp")) for name in left)
