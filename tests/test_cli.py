"""The command `nnunet_ssl` as it is typed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys

import pytest

from nnunet_ssl import __version__, cli
from nnunet_ssl.errors import complain


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"{__version__}\n")


def test_help_says_semi_supervised_first_and_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "The command `nnunet_ssl`: semi-supervised training for nnU-Net v2" in output
    assert all(f"{name} {summary}" in output for name, summary in cli.COMMANDS.items())


@pytest.mark.parametrize("name", [*cli.COMMANDS])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: nnunet_ssl {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nope"], ["path", "--nope"], ["doctor", "-p"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: nnunet_ssl" in capsys.readouterr().err


def test_errors_for_people_have_no_traceback_and_others_do(monkeypatch, capsys):
    from nnunet_ssl.commands import path

    def refuse(args):
        raise complain("It is wrong.", ["here", "there"], "Do this.")

    monkeypatch.setattr(path, "run", refuse)
    assert cli.main(["path"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "nnunet_ssl path: It is wrong.\n  - here\n  - there\nDo this.\n")

    def fail(args):
        raise ZeroDivisionError

    monkeypatch.setattr(path, "run", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["path"])


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "/data/a.json"), "/data/a.json: No such file or directory"),
        (
            PermissionError(13, "Permission denied", "/data/a.json"),
            "Permission denied: /data/a.json.\nGet the right to read and write in /data, then do the same again.",
        ),
        (
            OSError(28, "No space left on device", "/data/a.json"),
            "No space left in /data.\nFree some space there, then do the same again.",
        ),
        (OSError("plain text"), "plain text"),
    ],
)
def test_errors_of_the_system_are_explained(monkeypatch, capsys, error, text):
    from nnunet_ssl.commands import path

    def fail(args):
        raise error

    monkeypatch.setattr(path, "run", fail)
    assert cli.main(["path"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"nnunet_ssl path: {text}\n")


def test_an_interrupt_is_said_in_one_line(monkeypatch, capsys):
    from nnunet_ssl.commands import path

    def interrupt(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(path, "run", interrupt)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert cli.main(["path"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    text = "interrupted; what is finished is kept, run the command again"
    assert capsys.readouterr().err == f"\nnnunet_ssl path: {text}\n"


def test_path_is_quick_since_it_imports_neither_torch_nor_nnunet():
    imported = "sorted({'torch', 'nnunetv2'} & {*sys.modules})"
    script = f"import sys; from nnunet_ssl.cli import main; main(['path']); print({imported})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_terminal_that_knows_ascii_only(monkeypatch, name):
    from nnunet_ssl.commands import path

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, name, stream)
    monkeypatch.setattr(
        path, "run", lambda args: print("M\u00fcller 0.9 \u00b1 0.1 caf\udce9", file=getattr(sys, name))
    )
    assert cli.main(["path"]) == 0
    stream.flush()
    assert stream.buffer.getvalue() == b"M?ller 0.9 ? 0.1 caf?\n"


def test_path_keeps_every_character(tmp_path):
    """The shell sets a variable to what is printed, so nothing in it may be replaced."""
    others = os.fsencode(tmp_path) + b"/\xe7\x8e\x8b/caf\xe9"
    os.makedirs(others)
    environment = {**os.environb, b"nnUNet_extTrainer": others, b"PYTHONIOENCODING": b"ascii", b"LC_ALL": b"C"}
    script = "from nnunet_ssl.cli import main; main(['path'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert done.stdout.startswith(others + b":") and done.stderr == b""
