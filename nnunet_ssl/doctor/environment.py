"""The four environment variables of nnU-Net that matter here."""

from __future__ import annotations

import os
from collections.abc import Mapping

from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor.external_entries import entry_findings
from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding

EXPORT = f"export {VARIABLE}=$(nnunet_ssl path)"
NEEDED_FOR = {
    "nnUNet_raw": "converting and preprocessing",
    "nnUNet_preprocessed": "preprocessing, splits and plans",
    "nnUNet_results": "training",
}


def environment_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """nnUNet_raw, nnUNet_preprocessed, nnUNet_results and nnUNet_extTrainer: set, there and writable?"""
    folders = [_folder(name, environment.get(name)) for name in NEEDED_FOR]
    return [*folders, *_external(environment.get(VARIABLE))]


def _folder(name: str, value: str | None) -> Finding:
    if not value:
        return Finding(WRONG, name, "not set", f"export {name}=/path/to/{name}")
    if not os.path.isdir(value):
        return Finding(WRONG, name, f"{value} is not a folder", f"mkdir -p '{value}', or correct {name}")
    if not os.access(value, os.W_OK):
        text = f"{value} cannot be written to; {NEEDED_FOR[name]} will fail"
        if name == "nnUNet_results":
            return Finding(WRONG, name, text, "get write permission there, or set nnUNet_results to another folder")
        return Finding(NOTE, name, text)
    return Finding(OK, name, value)


def _external(value: str | None) -> list[Finding]:
    if not value:
        return [Finding(WRONG, VARIABLE, "not set", EXPORT)]
    entries = [entry for entry in value.split(os.pathsep) if entry.strip()]
    findings = []
    if not any(os.path.realpath(entry) == os.path.realpath(external_directory()) for entry in entries):
        text = f"{value}\ndoes not hold {external_directory()}"
        findings.append(Finding(NOTE, VARIABLE, text, EXPORT))
    else:
        findings.append(Finding(OK, VARIABLE, value))
    return [*findings, *entry_findings(value)]
