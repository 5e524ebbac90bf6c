"""What ends a process is told by its message where that says all, and by its traceback where it does not."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from nnunet_ssl.errors import SemiSupervisedError, complain
from nnunet_ssl.system.uncaught import explanation

PROGRAM = """
import sys
from nnunet_ssl.system.uncaught import explain_uncaught

earlier = sys.excepthook
sys.excepthook = lambda *arguments: (print("somebody else's hook", file=sys.stderr), earlier(*arguments))
explain_uncaught()
explain_uncaught()
{last}
"""
ALONE = {
    "raise SemiSupervisedError('There is no split.\\nRun: a command')": "\nThere is no split.\nRun: a command\n",
    "open('/dev/full', 'w').write('x' * 100_000)": None,  # unnamed: nobody knows what it was that could not be written
    "open('n' * 300, 'w')": f"\nThe name is too long for this file system: {'n' * 300}.\nChoose shorter names",
    "raise ValueError('a fault of the program')": None,
}


@pytest.mark.parametrize("last", ALONE)
def test_the_end_of_a_process(last):
    said = ALONE[last]
    program = PROGRAM.format(last=f"from nnunet_ssl.errors import SemiSupervisedError\n{last}")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    if said is None:
        assert done.stderr.count("somebody else's hook") == 1 and "Traceback" in done.stderr
    else:
        assert done.stderr.startswith(said) and "Traceback" not in done.stderr


def raised(error: BaseException, module: str) -> BaseException:
    """The error, as a module of that name raises it."""
    with pytest.raises(type(error)) as caught:
        exec("raise error", {"__name__": module, "error": error})
    return caught.value


def test_what_a_trainer_does_not_support_is_told_and_what_a_library_does_not_is_a_fault():
    assert explanation(raised(NotImplementedError("no regions"), "nnunet_ssl.trainers.skcdf.trainer")) == "no regions"
    assert explanation(raised(NotImplementedError("no regions"), "torch.nn")) == ""


def test_messages_are_complete():
    error = complain("Wrong.", ["case_1"], "Correct it.")
    assert isinstance(error, SemiSupervisedError) and explanation(error) == "Wrong.\n  - case_1\nCorrect it."
    full = OSError(errno.ENOSPC, "No space left on device", "/data/a.txt")
    assert explanation(full).startswith("No space left in /data.\nFree some space there")
    assert explanation(FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/a")) == ""
