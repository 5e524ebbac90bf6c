"""Versions and places of what a semi-supervised training needs, and the device it would run on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import nnunetv2
import torch
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

import nnunet_ssl
from nnunet_ssl.doctor.preflight import installed_version, number_findings, requirement_finding
from nnunet_ssl.doctor.report import NOTE, OK, Finding


def installation_findings() -> list[Finding]:
    """Python, PyTorch, nnU-Net and this package, and whether the installed versions fit this package."""
    return [
        Finding(OK, "Python", f"{platform.python_version()}  {sys.executable}"),
        Finding(OK, "PyTorch", f"{torch.__version__}  {_folder(torch.__file__)}"),
        Finding(OK, "nnU-Net", f"{installed_version('nnunetv2')}  {_folder(nnunetv2.__file__)}"),
        Finding(OK, "nnunet_ssl", f"{nnunet_ssl.__version__}  {_folder(nnunet_ssl.__file__)}"),
        requirement_finding(),
    ]


def _folder(file: str | None) -> str:
    return str(Path(file).parent) if file else "unknown place"


def device_findings() -> list[Finding]:
    """Device, mixed precision, compilation and workers that `nnUNetv2_train` would use in this environment."""
    device = best_device()
    return [_device(device), _mixed_precision(device), _compilation(device), _workers()]


def best_device() -> str:
    """cuda, mps or cpu: what `-device` should name. nnU-Net's own default is always cuda."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(device: str) -> Finding:
    if device == "cuda":
        cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return Finding(OK, "device", "cuda: " + ", ".join(f"{c.name} {c.total_memory / 2**30:.0f} GiB" for c in cards))
    text = f"{device}: PyTorch sees no CUDA device; nnU-Net's commands use cuda unless told otherwise"
    return Finding(NOTE, "device", text, f"nnUNetv2_train ... -device {device}")


def _mixed_precision(device: str) -> Finding:
    on = "on (float16 in the networks, float32 in the losses of this package)"
    return Finding(OK, "mixed precision", on if device == "cuda" else "off, nnU-Net uses it on CUDA only")


def _compilation(device: str) -> Finding:
    """nnU-Net's rule: on unless switched off, and only on CUDA and not on Windows."""
    value = os.environ.get("nnUNet_compile")
    said = "not set" if value is None else f"nnUNet_compile={value}"
    wanted = value is None or value.lower() in ("true", "1", "t")
    if device != "cuda" or os.name == "nt":
        return Finding(OK, "torch.compile", f"off on this device ({said})")
    return Finding(OK, "torch.compile", f"{'on' if wanted else 'off'} ({said})")


def _workers() -> Finding:
    wrong = [finding for finding in number_findings() if "nnUNet_n_proc_DA" in finding.text]
    if wrong:
        return wrong[0]
    number, value = get_allowed_n_proc_DA(), os.environ.get("nnUNet_n_proc_DA")
    source = "nnUNet_n_proc_DA" if value is not None else "nnU-Net's default, nnUNet_n_proc_DA is not set"
    return Finding(OK, "loading workers", f"{number} ({source}), shared by labelled and unlabelled patches")
