"""What stops nnU-Net or PyTorch from being imported at all. Imports neither before it has looked."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from importlib import metadata

from nnunet_ssl.doctor.report import NOTE, OK, WRONG, Finding
from nnunet_ssl.errors import INSTALL

DISTRIBUTION = "nnunet-ssl"
WHOLE_NUMBERS = {"nnUNet_def_n_proc": "preprocessing processes", "nnUNet_n_proc_DA": "loading workers"}
NEEDED = {"torch": "PyTorch", "nnunetv2.configuration": "nnU-Net", "nnunet_ssl.doctor.examine": "nnunet_ssl"}


def preflight_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Findings that leave nothing else to examine; empty if everything can be imported."""
    findings = number_findings(environment)
    if findings:  # nnU-Net reads these variables while it is imported, and fails
        return findings
    for module, name in NEEDED.items():
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation fails in any way
            text = f"cannot be imported: {type(error).__name__}: {error}"
            found = Finding(WRONG, name, text, f"repair the installation: {INSTALL}")
            return [found, *(f for f in [requirement_finding()] if f.mark != OK)]
    return []


def number_findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Variables that nnU-Net turns into numbers and that are none."""
    findings = []
    for variable, item in WHOLE_NUMBERS.items():
        value = environment.get(variable)
        try:
            int("0" if value is None else value)
        except ValueError:
            text = f"{variable}={value} is not a whole number"
            findings.append(Finding(WRONG, item, text, f"export {variable}=8, or unset {variable}"))
    return findings


def requirement_finding() -> Finding:
    """Whether the installed distributions fit what this package asks for."""
    try:
        from packaging.requirements import Requirement

        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        text = "this package is used without being installed, so the versions it needs were not checked"
        return Finding(NOTE, "requirements", text, INSTALL)
    except ImportError as error:
        return Finding(WRONG, "requirements", f"cannot be checked: {error}", INSTALL)
    problems = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(requirement.name)
        if found == "not installed":
            problems.append(f"{requirement} is not installed")
        elif not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {found} is installed, but {requirement} is needed")
    if problems:
        return Finding(WRONG, "requirements", "\n".join(problems), INSTALL)
    return Finding(OK, "requirements", "every required package is installed in a version that fits")


def installed_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
