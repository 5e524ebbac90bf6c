"""With what a result was made: versions, revision of this package, device."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nnunet_ssl

PACKAGES = ("nnunetv2", "torch", "monai")
PATIENCE = 10  # seconds for an answer of git or nvidia-smi


@functools.cache
def versions() -> dict[str, str]:
    """Versions of this package, what it builds on, and Python."""
    found = {"nnunet_ssl": nnunet_ssl.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return {**found, "python": platform.python_version()}


@functools.cache
def git_revision() -> str | None:
    """Commit of this package where it runs from a clone, with "+changes" where files differ from it; else None."""
    package = Path(nnunet_ssl.__file__).resolve().parent
    top = _output("git", "-C", str(package), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != package.parent:  # installed, perhaps below somebody else's clone
        return None
    revision = _output("git", "-C", str(package), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(package), "status", "--porcelain", "--", str(package))
    return f"{revision}+changes" if revision and changes else revision


def device_name(device: str, gpu: str | None) -> str:
    """ "cpu", or "cuda: NVIDIA A100" where nvidia-smi tells."""
    if device != "cuda":
        return device
    chosen = ["-i", gpu.split(",")[0]] if gpu else []
    name = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader", *chosen)
    return f"cuda: {name.splitlines()[0]}" if name else device


def host() -> str:
    """Name of this computer: times are comparable on equal ones only."""
    return platform.node()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
