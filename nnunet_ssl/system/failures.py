"""Errors of the system, such as a full disk: told as what they are, never as faults of somebody's data."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from nnunet_ssl.errors import SemiSupervisedError

PROBE = 1 << 20  # bytes that a folder must take if it is not to count as full

# what is wrong with {path} or {folder}, and what to do
_SPACE = {
    errno.ENOSPC: ("No space left in {folder}", "Free some space there"),
    errno.EDQUOT: ("The disk quota is used up in {folder}", "Delete files of yours there, or ask for a larger quota"),
    errno.EFBIG: ("{path} would become larger than files may be here", "Raise the limit (ulimit -f)"),
}
_OTHERS = {
    errno.EACCES: ("Permission denied: {path}", "Get the right to read and write in {folder}"),
    errno.EPERM: ("The system does not permit this: {path}", "Get the right to read and write in {folder}"),
    errno.EROFS: ("{folder} is on a file system that is mounted read-only", "Have it mounted for writing"),
    errno.ESTALE: ("The network file system has lost {path} (stale file handle)", "Wait for it, or mount it again"),
    errno.EIO: ("The disk or the network failed at {path} (input/output error)", "Have the file system checked"),
    errno.ENAMETOOLONG: ("The name is too long for this file system: {path}", "Choose shorter names"),
    errno.EMFILE: ("Too many files are open in this process", "Raise the limit (ulimit -n)"),
    errno.ENFILE: ("Too many files are open on this computer", "End other programs"),
    errno.ENOMEM: ("The system has no memory left", "End other programs, or use fewer processes"),
}
_FAILURES = _SPACE | _OTHERS


class SystemFailure(OSError, SemiSupervisedError):
    """An error of the system with a message for a person; ``errno`` and ``filename`` are those of the error."""

    def __str__(self) -> str:
        return str(self.strerror)


def find_failure(error: BaseException, written: str | os.PathLike[str] | None = None) -> SystemFailure | None:
    """The system's failure behind an exception; None where the system is not at fault.

    Some libraries hide it: PyTorch raises another error while it handles the first, Blosc2 and ITK say that writing
    failed and not why. So the errors before the last one count too, the text, and whether the folder takes anything.

    Args:
        error: any exception.
        written: file or folder that was being written to; None where nothing was.
    """
    if isinstance(error, SystemFailure):
        return error
    cause = _system_error(error)
    if cause is None and written is not None and isinstance(error, RuntimeError):
        cause = _refusal_of(_folder(os.fspath(written)))
    if cause is None or cause.errno is None:
        return None
    path = _text(cause.filename) if cause.filename is not None else os.fspath(written) if written is not None else ""
    what, remedy = _FAILURES[cause.errno]
    names = {"path": path or "(unnamed file)", "folder": _folder(path) if path else "the folder of the output"}
    lines = f"{what}.\n{remedy}, then do the same again.".format(**names)
    return SystemFailure(cause.errno, lines, path or None)


def raise_failure(error: BaseException, written: str | os.PathLike[str] | None = None) -> None:
    """Raise the system's failure behind an exception; return where there is none. See :func:`find_failure`."""
    failure = find_failure(error, written)
    if failure is error:
        raise error
    if failure is not None:
        raise failure from error


@contextmanager
def system_errors(written: str | os.PathLike[str]) -> Iterator[None]:
    """Failures of the system in the block, which writes this file or folder, are raised as such.

    Raises:
        SystemFailure: in place of the error that the block ended with.
    """
    try:
        yield
    except Exception as error:
        raise_failure(error, written)
        raise


def _system_error(error: BaseException) -> OSError | None:
    """Of the error itself; lack of space also of those before it, which no code of ours handles by going on."""
    before: BaseException | None = error
    while before is not None:
        if isinstance(before, OSError) and before.errno in (_FAILURES if before is error else _SPACE):
            return before
        before = before.__cause__ or before.__context__
    text = str(error)
    number = next((n for n in _FAILURES if os.strerror(n) in text), None) if isinstance(error, RuntimeError) else None
    return OSError(number, os.strerror(number)) if number is not None else None


def _refusal_of(folder: str) -> OSError | None:
    """Why a folder takes no file of a moderate size; None if it does."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return OSError(error.errno, error.strerror, folder) if error.errno in _FAILURES else None
    return None


def _folder(path: str) -> str:
    return path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))


def _text(path: str | bytes | int) -> str:
    return os.fsdecode(path) if isinstance(path, (str, bytes)) else f"file descriptor {path}"
