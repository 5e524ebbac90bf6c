"""What the system refuses is told as such, whatever a library makes of it."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.system.failures import SystemFailure, find_failure, system_errors

SAID = {
    errno.ENOSPC: "No space left in {folder}",
    errno.EDQUOT: "The disk quota is used up in {folder}",
    errno.EACCES: "Permission denied: {path}",
    errno.EROFS: "{folder} is on a file system that is mounted read-only",
    errno.ESTALE: "The network file system has lost {path} (stale file handle)",
    errno.EIO: "The disk or the network failed at {path} (input/output error)",
    errno.ENAMETOOLONG: "The name is too long for this file system: {path}",
    errno.EMFILE: "Too many files are open in this process",
}


@pytest.mark.parametrize("number", SAID)
def test_the_message_names_what_failed_and_a_remedy(tmp_path, number):
    path = tmp_path / "a.json"
    with pytest.raises(SystemFailure) as caught, system_errors(path):
        raise OSError(number, os.strerror(number))  # as a failed write does: without the name
    first, remedy = str(caught.value).splitlines()
    assert first == SAID[number].format(path=path, folder=tmp_path) + "."
    assert remedy.endswith(", then do the same again.")
    assert caught.value.errno == number and isinstance(caught.value, SemiSupervisedError)


def test_the_file_that_the_error_names_is_named(tmp_path):
    failure = find_failure(PermissionError(errno.EACCES, "Permission denied", "/data/case.nii.gz"), tmp_path)
    assert str(failure).startswith("Permission denied: /data/case.nii.gz.\nGet the right to read and write in /data,")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/a"),
        IsADirectoryError(errno.EISDIR, "Is a directory", "/data"),
        OSError("Not a gzipped file (b'no')"),
        RuntimeError("ITK ERROR: damaged header"),
        ValueError("no number"),
    ],
)
def test_faults_of_files_are_none_of_the_system(tmp_path, error):
    assert find_failure(error, tmp_path) is None
    with pytest.raises(type(error)) as caught, system_errors(tmp_path):
        raise error
    assert caught.value is error


def test_permission_denied_before_the_error_is_not_its_cause(tmp_path):
    """A program may have tried another file first; only lack of space is looked for that far back."""
    with pytest.raises(ValueError, match="no number"), system_errors(tmp_path):
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "/cache")
        except PermissionError:
            raise ValueError("no number")  # noqa: B904


def test_lack_of_space_behind_another_error_is_found(tmp_path):
    with pytest.raises(SystemFailure, match="No space left in"), system_errors(tmp_path):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904  # as PyTorch does


def test_texts_of_libraries_are_understood(tmp_path):
    error = RuntimeError("iostream error: No space left on device")
    assert "No space left in" in str(find_failure(error, tmp_path / "a"))


def test_failures_reach_another_process_unchanged():
    failure = find_failure(OSError(errno.ENOSPC, "No space left on device", "/data/a"))
    again = pickle.loads(pickle.dumps(failure))
    assert (type(again), str(again), again.errno, again.filename) == (SystemFailure, str(failure), 28, "/data/a")
