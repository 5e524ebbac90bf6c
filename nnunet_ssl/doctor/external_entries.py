"""Entries of nnUNet_extTrainer with which nnU-Net's search for trainers fails or finds copies of the installed ones.

Judged by the files alone, so that `nnunet_ssl path` stays quick; what the search really finds is asked in lookup.py.
"""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import re
from collections.abc import Iterator

from nnunet_ssl.discovery import VARIABLE, external_directory
from nnunet_ssl.doctor.report import NOTE, Finding
from nnunet_ssl.errors import some
from nnunet_ssl.trainers import TRAINERS

OUR_CLASS = re.compile(rf"^class ({'|'.join(TRAINERS)})\b", re.MULTILINE)
INSTEAD = f"take it out of {VARIABLE}, or name a folder with one module that imports its trainers, installed with pip"


def entry_findings(value: str | None) -> list[Finding]:
    """What is wrong with the entries, ours excepted; empty if nothing is."""
    entries = [entry for entry in (value or "").split(os.pathsep) if entry.strip()]
    findings = []
    absent = [entry for entry in entries if not os.path.isdir(entry)]
    if absent:
        text = f"nnU-Net skips entries that are no folders: {', '.join(absent)}"
        findings.append(Finding(NOTE, VARIABLE, text, f"correct {VARIABLE} if they matter"))
    for entry in entries:
        if entry not in absent and os.path.realpath(entry) != os.path.realpath(external_directory()):
            problem = _problem(entry)
            if problem:
                findings.append(Finding(NOTE, VARIABLE, f"{entry}: {problem}", INSTEAD))
    return findings


def _problem(entry: str) -> str:
    """Why the entry breaks look-ups; empty if nothing is seen that does."""
    if os.path.isfile(os.path.join(entry, "__init__.py")):
        return "is a package; nnU-Net imports its modules without it: relative imports fail, and classes are copies"
    if os.path.isfile(os.path.join(entry, "setup.py")):
        return "holds setup.py, which nnU-Net runs as a module, and the search ends"
    installed = [
        module.name for module in pkgutil.iter_modules([entry]) if module.ispkg and _installed(module.name, entry)
    ]
    if installed:
        return (
            f"holds packages that Python finds anyway ({some(installed)}); nnU-Net makes a second copy of their classes"
        )
    copies = {name for file in _modules(entry) for name in OUR_CLASS.findall(_read(file))}
    if copies:
        return f"holds a copy of {some(copies)}; nnU-Net may find it in place of the installed one"
    return ""


def _installed(package: str, entry: str) -> bool:
    """Whether Python imports this very package without the entry."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and _below(spec.origin, entry)


def _below(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


def _modules(folder: str) -> Iterator[str]:
    """Files of the modules that nnU-Net imports: those of the folder and of the packages below it."""
    for module in pkgutil.iter_modules([folder]):
        if module.ispkg:
            yield from _modules(os.path.join(folder, module.name))
        else:
            yield os.path.join(folder, f"{module.name}.py")


def _read(file: str) -> str:
    """Empty for modules without source."""
    if not os.path.isfile(file):
        return ""
    with open(file, encoding="utf-8", errors="replace") as source:
        return source.read()
