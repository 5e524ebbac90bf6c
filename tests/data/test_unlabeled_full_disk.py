"""A full disk, or another failure of the system, is no fault of the images."""

from __future__ import annotations

import errno
import os

import pytest

from nnunet_ssl.cli import main
from nnunet_ssl.data import file_damage, preprocess_case
from nnunet_ssl.data.unlabeled import unlabeled_identifiers
from tests.data.unlabeled_helpers import CASES, folder_of, preprocess
from tests.full_disk import small_disk
from tests.tiny import DATASET

COMMAND = ["preprocess", "-d", DATASET, "-c", "3d_fullres", "-np", "1"]
FAILURES = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ESTALE, errno.ENAMETOOLONG, errno.EMFILE]


@pytest.mark.parametrize("cases_that_fit", [0, 1])
def test_a_full_file_system(make_dataset, capsys, cases_that_fit):
    dataset = make_dataset(preprocess=False)
    preprocess()
    folder = folder_of(dataset)
    used = sum(4 * -(-p.stat().st_size // 4096) for p in folder.glob(f"{CASES[0]}*"))  # KiB in pages of 4
    for path in folder.iterdir():
        path.unlink()
    with small_disk(folder, 12 + used * cases_that_fit):
        assert main(COMMAND) == 1
        error = capsys.readouterr().err
        assert f"nnunet_ssl preprocess: No space left in {folder}.\nFree some space there" in error
        assert "remove these" not in error and "Traceback" not in error
        finished = unlabeled_identifiers(str(folder))
        assert finished == CASES[:cases_that_fit]
        assert len(list(folder.rglob("*"))) == 3 * len(finished), "nothing unfinished is left"
    assert main(COMMAND) == 0
    assert unlabeled_identifiers(str(folder)) == CASES


@pytest.mark.parametrize("number", FAILURES)
@pytest.mark.parametrize("doing", ["reading", "writing"])
def test_what_the_system_refuses_is_no_fault_of_the_images(make_dataset, monkeypatch, capsys, doing, number):
    dataset = make_dataset(preprocess=False)

    def fail(*arguments):
        raise OSError(number, os.strerror(number), *([arguments[0]] if doing == "reading" else []))

    module, name = (file_damage, "_damage") if doing == "reading" else (preprocess_case, "_run_preprocessor")
    monkeypatch.setattr(module, name, fail)
    assert main(COMMAND) == 1
    error = capsys.readouterr().err
    assert "then do the same again." in error
    assert not any(blame in error for blame in ("Correct or remove", "cannot be used", "damaged", "could not be"))
    if number in (errno.ENOSPC, errno.EACCES):
        place = "imagesUn" if doing == "reading" else folder_of(dataset).name
        assert place in error.split("nnunet_ssl preprocess: ")[1].splitlines()[0]
    assert unlabeled_identifiers(str(folder_of(dataset))) == []
    assert not list(folder_of(dataset).rglob("*")) if folder_of(dataset).exists() else True


def test_faults_of_images_are_still_told_as_such(make_dataset, monkeypatch, capsys):
    make_dataset(preprocess=False)

    def fail(*arguments):
        raise RuntimeError("the image makes no sense")

    monkeypatch.setattr(preprocess_case, "_run_preprocessor", fail)
    assert main(COMMAND) == 1
    error = capsys.readouterr().err
    assert "extra_000: the image makes no sense" in error and "Correct or remove these images" in error
