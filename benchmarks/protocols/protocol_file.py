"""Protocol files: the published splits of the datasets on which semi-supervised methods are compared.

A protocol names *units*: what the published lists name, a scan or a patient. `case_names` tells which cases of an
nnU-Net dataset belong to a unit. A fact is {value, source} or {unknown: why}; README.md describes every key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ssl.data.folders import name_problem
from nnunet_ssl.data.text_files import read_yaml
from nnunet_ssl.errors import complain

VERSION = 1
METHODS = ("skcdf", "dkuxnet", "dual_networks", "plgcl", "cmaformer_ldc")
REQUIRED = ("version", "name", "title", "modality", "papers", "sources", "facts", "labels", "case_names", "preparation")
FACTS = {
    "official": ("homepage", "download", "access", "licence", "cases", "reference"),
    "published": ("preprocessing", "labelled", "metrics", "distance_unit", "asd", "empty_masks", "runs", "checkpoint"),
}
ORIGINS = ("published", "own")  # own: the publication gives no list, this project draws one


@dataclass(frozen=True)
class UnitFold:
    """One fold in units, in the order of the published lists."""

    train: list[str]
    val: list[str]


@dataclass(frozen=True)
class UnitSplit:
    """One split of a protocol in units.

    Attributes:
        folds: training and validation units.
        test: units that are in no fold.
        labeled: name of the labelled set -> per fold, the units that keep their label.
    """

    folds: list[UnitFold]
    test: list[str]
    labeled: dict[str, list[list[str]]]

    @property
    def trained(self) -> set[str]:
        """All units of the folds."""
        return {unit for fold in self.folds for unit in (*fold.train, *fold.val)}


def read_protocol(path: str | Path) -> dict[str, Any]:
    """The protocol in a YAML file.

    Raises:
        SemiSupervisedError: not readable, or not a protocol, with all that is wrong.
    """
    content = read_yaml(path)
    problems = form_problems(content)
    if problems:
        raise complain(f"{path} is not a protocol:", problems)
    return content


def form_problems(content: Any) -> list[str]:
    """What keeps a parsed file from being a protocol; lists and splits are looked at too. Empty if it is one."""
    if not isinstance(content, dict):
        return ["it must be a mapping"]
    problems = [f"{key}: missing" for key in REQUIRED if key not in content]
    if problems:
        return problems
    if content["version"] != VERSION:
        problems.append(f"version {content['version']!r}; this one is {VERSION}")
    problems += [f"papers: {p} is none of {', '.join(METHODS)}" for p in content["papers"] if p not in METHODS]
    problems += _fact_problems(content)
    try:
        pattern = re.compile(content["case_names"]["pattern"])
        if pattern.groups != 1:
            problems.append("case_names: the pattern needs exactly one group, the unit")
    except (re.error, KeyError, TypeError) as error:
        problems.append(f"case_names: {error!r}")
    for name in content.get("splits", {}):
        problems += [f"split {name}: {problem}" for problem in _split_problems(content, name)]
    return problems


def _fact_problems(content: Mapping[str, Any]) -> list[str]:
    problems, known = [], content["sources"]
    for section, names in FACTS.items():
        facts = content["facts"].get(section) or {}
        problems += [f"facts: {section}.{name} is missing" for name in names if name not in facts]
        for name, entry in facts.items():
            for fact in entry if isinstance(entry, list) else [entry]:
                where = f"facts: {section}.{name}"
                if not isinstance(fact, dict) or not (set(fact) == {"unknown"} or {"value", "source"} == set(fact)):
                    problems.append(f"{where} must be {{value, source}} or {{unknown}}, it is {fact!r}")
                elif "source" in fact:
                    problems += [f"{where}: {s} is no source" for s in _as_list(fact["source"]) if s not in known]
    for name, split in content.get("splits", {}).items():
        problems += [f"split {name}: {s} is no source" for s in _as_list(split.get("source")) if s not in known]
        if "source" not in split and split.get("origin") == "published":
            problems.append(f"split {name}: without source")
    return problems


def _split_problems(content: Mapping[str, Any], name: str) -> list[str]:
    """Form of one split, and its lists against the numbers that it states."""
    entry = content["splits"][name]
    if entry.get("origin") not in ORIGINS:
        return [f"origin must be one of {', '.join(ORIGINS)}"]
    try:
        units = dataset_units(content)
        expected = units if units is not None else [f"u{i:04d}" for i in range(anonymous_size(content))]
        split = resolve(content, name, expected)
        counts = entry["counts"]
    except (KeyError, TypeError, ValueError) as error:
        return [f"{error!r}"]
    problems = list(_repeated("test", split.test))
    for index, fold in enumerate(split.folds):
        parts = {"train": fold.train, "val": fold.val, "test": split.test}
        for part in ("train", "val"):
            problems += [f"fold {index}: {problem}" for problem in _repeated(part, parts[part])]
            if counts[part][index] != len(parts[part]):
                problems.append(f"fold {index}: {len(parts[part])} {part} units, {counts[part][index]} stated")
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            both = sorted(set(parts[one]) & set(parts[other]))
            problems += [f"fold {index}: in {one} and {other}: {', '.join(both)}"] if both else []
    if counts["test"] != len(split.test):
        problems.append(f"{len(split.test)} test units, {counts['test']} stated")
    for label, folds in split.labeled.items():
        problems += [problem] if (problem := name_problem(label)) else []
        stated = entry["labeled"][label]["count"]
        for index, (chosen, fold) in enumerate(zip(folds, split.folds, strict=True)):
            problems += [f"{label}, fold {index}: {problem}" for problem in _repeated("labelled", chosen)]
            if outside := sorted(set(chosen) - set(fold.train)):
                problems.append(f"{label}, fold {index}: not among the training units: {', '.join(outside)}")
            if len(chosen) != stated:
                problems.append(f"{label}, fold {index}: {len(chosen)} labelled units, {stated} stated")
    return problems


def dataset_units(content: Mapping[str, Any]) -> list[str] | None:
    """All units of the dataset as its names are known, or None where only their number is."""
    if "units" not in content:
        return sorted({unit for entry in content["lists"].values() for unit in expand(entry)})
    return None if "number" in content["units"] else expand(content["units"])


def anonymous_size(content: Mapping[str, Any]) -> int:
    """Number of units where their names are not known beforehand."""
    return int(content["units"]["number"])


def expand(entry: Any) -> list[str]:
    """A list of units as it is written: the units themselves, or {format, first, last} of consecutive numbers."""
    if isinstance(entry, list):
        return [str(unit) for unit in entry]
    return [entry["format"].format(number) for number in range(entry["first"], entry["last"] + 1)]


def resolve(content: Mapping[str, Any], name: str, units: Sequence[str], absent: Iterable[str] = ()) -> UnitSplit:
    """One split of the protocol for a dataset with these units.

    Args:
        units: all units of the dataset. They matter only where this project draws the parts itself.
        absent: withdrawn units, taken out of every list *after* the labelled ones are chosen, so that the others stay
            those of the publication.
    """
    entry, gone = content["splits"][name], set(absent)
    lists = {key: expand(value) for key, value in content.get("lists", {}).items()}
    if "draw" in entry:
        lists.update(draw_parts(units, entry["draw"]["seed"], entry["draw"]["parts"]))
    folds, labeled = [], {label: list[list[str]]() for label in entry["labeled"]}
    for fold in entry["folds"]:
        train = [unit for key in fold["train"] for unit in lists[key]]
        for label, rule in entry["labeled"].items():
            chosen = train[: rule["count"]] if rule.get("rule") == "first" else lists[rule["list"]]
            labeled[label].append([unit for unit in chosen if unit not in gone])
        val = [unit for key in fold["val"] for unit in lists[key] if unit not in gone]
        folds.append(UnitFold([unit for unit in train if unit not in gone], val))
    test = [unit for key in entry.get("test", []) for unit in lists[key] if unit not in gone]
    return UnitSplit(folds, test, labeled)


def draw_parts(units: Sequence[str], seed: int, sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Consecutive parts of these sizes of one seeded order of the sorted units.

    Raises:
        ValueError: the sizes do not add up to the number of units.
    """
    if sum(sizes.values()) != len(units):
        raise ValueError(f"parts of {sum(sizes.values())} units for {len(units)}")
    ordered = sorted(units)  # RandomState, because NumPy guarantees its stream
    order = [ordered[i] for i in np.random.RandomState(seed).permutation(len(ordered))]
    parts, start = {}, 0
    for key, size in sizes.items():
        parts[key] = order[start : start + size]
        start += size
    return parts


def _repeated(what: str, units: Sequence[str]) -> list[str]:
    twice = sorted(unit for unit, times in Counter(units).items() if times > 1)
    return [f"more than once in {what}: {', '.join(twice)}"] if twice else []


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
