"""Give a preprocessed nnU-Net dataset the folds and the labelled cases of a published semi-supervised protocol.

    python benchmarks/protocols/apply.py benchmarks/protocols/la.yaml -d 201
    python benchmarks/protocols/apply.py benchmarks/protocols/acdc.yaml -d 27 --test FOLDER

Writes splits_final.json (only if it is absent or equal) and adds the protocol's labelled sets to splits_ssl.json.
Refused where the cases of the dataset are not those of the protocol. `--list` shows what a protocol holds.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from link_cases import link_test_cases
from protocol_file import UnitSplit, anonymous_size, dataset_units, read_protocol, resolve

from nnunet_ssl.data.folders import labeled_cases, load_plans, preprocessed_base, write_json
from nnunet_ssl.data.split_folds import NNUNET_FOLDS, read_folds
from nnunet_ssl.data.split_making import refuse_other_content
from nnunet_ssl.data.splits import (
    Fold,
    Split,
    Splits,
    dataset_name,
    locked_splits,
    splits_path,
    stored_splits,
    write_splits,
)
from nnunet_ssl.errors import SemiSupervisedError, complain

Cases = dict[str, list[str]]  # unit -> its cases


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    try:
        protocol = read_protocol(args.protocol)
        if args.list:
            print("\n".join(contents(protocol)))
            return 0
        print("\n".join(apply(protocol, args.d, args.split, args.p, args.ignore_existing_folds, args.test)))
    except SemiSupervisedError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", metavar="PROTOCOL.yaml")
    parser.add_argument("-d", metavar="DATASET", help="dataset id or name")
    parser.add_argument("-p", default="nnUNetPlans", metavar="PLANS", help="plans of the preprocessed cases")
    parser.add_argument("--split", help="which split of the protocol (default: its first; see --list)")
    parser.add_argument("--list", action="store_true", help="show the splits of the protocol and stop")
    parser.add_argument(
        "--ignore-existing-folds",
        action="store_true",
        help=f"leave another {NNUNET_FOLDS} as it is",
    )
    parser.add_argument("--test", metavar="FOLDER", help="link images and labels of the test cases into this folder")
    args = parser.parse_args(argv)
    if not args.list and args.d is None:
        parser.error("give -d DATASET, or --list")
    return args


def contents(protocol: Mapping[str, Any]) -> list[str]:
    """The splits of a protocol, in words."""
    lines = [f"{protocol['name']}: {protocol['title']}"]
    for name, split in protocol.get("splits", {}).items():
        counts = split["counts"]
        by = "as published" if split["origin"] == "published" else "drawn by this project, the publication has no list"
        numbers = f"training {counts['train']}, validation {counts['val']}, test {counts['test']}"
        lines.append(f"  {name} ({by}): {numbers} per fold, of {protocol['case_names']['unit']}s")
        lines += [f"    {label}: {rule['count']} labelled" for label, rule in split["labeled"].items()]
    return lines


def apply(
    protocol: Mapping[str, Any],
    dataset: str | int,
    split_name: str | None = None,
    plans_identifier: str = "nnUNetPlans",
    ignore_existing_folds: bool = False,
    test_folder: str | None = None,
) -> list[str]:
    """Write the folds and labelled sets; returns what was done, as lines of text.

    Raises:
        SemiSupervisedError: unknown split, cases that differ from the protocol's, other folds or other labelled sets
            of the same name there; nothing is written then.
    """
    name = split_name or next(iter(protocol["splits"]))
    if name not in protocol["splits"]:
        raise complain(f'The protocol has no split "{name}". It has: {", ".join(protocol["splits"])}.')
    base = preprocessed_base(dataset)
    cases = labeled_cases(base, load_plans(base, plans_identifier))
    members = cases_of_units(cases, protocol["case_names"])
    split, withdrawn = matching_split(protocol, name, members)
    folds = [
        {part: sorted(cases_of(getattr(fold, part), members)) for part in ("train", "val")} for fold in split.folds
    ]
    test, linked = sorted(cases_of(split.test, members)), ""
    with locked_splits(base):
        splits = new_splits(base, split, members)
        note = None if ignore_existing_folds else folds_to_write(base, folds, cases)
        if test_folder is not None:
            linked = link_test_cases(dataset_name(base), test, test_folder)
        write_splits(base, splits)
        if note is not None:
            write_json(os.path.join(base, NNUNET_FOLDS), folds)  # type: ignore[arg-type]  # a list is written as well
    lines = [f"{protocol['name']}, split {name}: {splits_path(base)}"]
    lines.append(f"{NNUNET_FOLDS}: {note or 'left as it is; plans that carry a split use splits_ssl.json'}")
    if withdrawn:
        lines.append(f"NOTE: withdrawn from the official data and left out: {', '.join(withdrawn)}")
    for label in split.labeled:
        for index, fold in enumerate(splits.splits[label].folds):
            sizes = f"{len(fold.labeled)} labelled, {len(fold.unlabeled)} unlabelled, {len(fold.val)} validation cases"
            lines.append(f"  {label}, fold {index}: {sizes}")
    if linked:
        lines.append(linked)
    elif test:
        lines.append(f"NOTE: {len(test)} test cases are in no fold; --test FOLDER collects them.")
    lines += ["Next:", f"  nnunet_ssl plans -d {dataset} --split {next(iter(split.labeled))}"]
    return lines


def cases_of_units(cases: Iterable[str], naming: Mapping[str, Any]) -> Cases:
    """The cases of every unit.

    Raises:
        SemiSupervisedError: names that do not fit the protocol's pattern, units with a wrong number of cases.
    """
    members: Cases = {}
    problems = []
    for case in cases:
        match = re.fullmatch(naming["pattern"], case)
        if match is None:
            problems.append(f"{case}: does not fit the names of the protocol, {naming['pattern']}")
        else:
            members.setdefault(match[1], []).append(case)
    expected = naming.get("cases_per_unit", 1)
    problems += [
        f"{unit}: {len(found)} cases ({', '.join(found)}), {expected} expected"
        for unit, found in members.items()
        if len(found) != expected
    ]
    if problems:
        raise complain(
            "The cases of the dataset are not those of the protocol:", problems, "Prepare it as README.md says."
        )
    return members


def matching_split(protocol: Mapping[str, Any], name: str, members: Cases) -> tuple[UnitSplit, list[str]]:
    """The split for this dataset, and the withdrawn units that it lacks. Test units may be absent, all of them.

    Raises:
        SemiSupervisedError: units missing or unknown, all listed.
    """
    known = dataset_units(protocol)
    if known is None and len(members) != anonymous_size(protocol):
        raise complain(f"The protocol has {anonymous_size(protocol)} cases, the dataset {len(members)}.")
    every = sorted(members) if known is None else known
    listed = protocol.get("withdrawn", {}).get("units", [])
    withdrawn = [] if any(unit in members for unit in listed) else list(listed)
    split = resolve(protocol, name, every, withdrawn)
    expected = set(split.trained)
    if any(unit in members for unit in split.test):
        expected.update(split.test)
    problems = [f"{unit}: missing in the dataset" for unit in sorted(expected - set(members))]
    problems += [f"{unit}: not in split {name} of the protocol" for unit in sorted(set(members) - expected)]
    if problems:
        raise complain(
            f"The cases of the dataset are not those of {protocol['name']}, split {name}:",
            problems,
            "Prepare and preprocess the whole dataset as README.md says, or choose another split (--list).",
        )
    return split, withdrawn


def cases_of(units: Iterable[str], members: Cases) -> list[str]:
    return [case for unit in units for case in members.get(unit, [])]


def new_splits(base: str, split: UnitSplit, members: Cases) -> Splits:
    """What splits_ssl.json will hold: its present splits and the labelled sets of the protocol.

    Raises:
        SemiSupervisedError: a set of the same name with other cases is there.
    """
    old = stored_splits(base)
    divided = any(len(found) > 1 for found in members.values())
    groups = old.groups or ({case: unit for unit, found in members.items() for case in found} if divided else {})
    new = {}
    for label, per_fold in split.labeled.items():
        folds = []
        for chosen, fold in zip(per_fold, split.folds, strict=True):
            labeled, train = set(cases_of(chosen, members)), set(cases_of(fold.train, members))
            folds.append(Fold(sorted(labeled), sorted(train - labeled), sorted(cases_of(fold.val, members))))
        share = sum(len(f.labeled) for f in folds) / sum(len(f.labeled) + len(f.unlabeled) for f in folds)
        new[label] = Split(fraction=share, seed=None, folds=folds)
    refuse_other_content(base, old, new)
    return Splits(old.dataset, groups, {**old.splits, **new})


def folds_to_write(base: str, folds: list[dict[str, list[str]]], cases: Sequence[str]) -> str:
    """What becomes of splits_final.json, in words.

    Raises:
        SemiSupervisedError: there is one with other folds.
    """
    path = os.path.join(base, NNUNET_FOLDS)
    if not os.path.exists(path):
        return "written"
    found = [{"train": sorted(fold.train), "val": sorted(fold.val)} for fold in read_folds(path, cases, {})]
    if found == folds:
        return "already as in the protocol"
    sizes = ", ".join(f"{len(fold['train'])}/{len(fold['val'])}" for fold in found)
    raise complain(
        f"{path} holds other folds than the protocol (training/validation cases: {sizes}).",
        remedy="If nothing is trained with them yet, move that file away (nnU-Net's ACDC converter writes one). "
        "Otherwise give --ignore-existing-folds: plans that carry a split do not use that file.",
    )


if __name__ == "__main__":
    sys.exit(main())
