"""Plans copies and preprocessed data that were overtaken by new planning, and the commands that bring them up to date.

Labelled and unlabelled cases of one training must have been preprocessed alike, and as its plans say.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.data.folders import dataset_id, read_plans
from nnunet_ssl.data.labeled_state import contradictions, older_than
from nnunet_ssl.data.plans_block import BLOCK, CHANGED
from nnunet_ssl.data.plans_source import (
    counterpart,
    data_identifiers,
    differences,
    plans_beside,
    source_of,
)
from nnunet_ssl.data.pool_remedies import commands_to_make_again
from nnunet_ssl.data.preprocess_case import settings_hash
from nnunet_ssl.data.rewriting import rewriting_command
from nnunet_ssl.data.unlabeled_store import made_with_other_settings, unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.errors import SemiSupervisedError, complain

KEPT = ("patch_size", "batch_size", "architecture")  # what people change in a copy, and what rewriting takes back


@dataclass(frozen=True)
class Outdated:
    """What no longer fits together.

    Attributes:
        summary: one sentence.
        problems: one line each.
        commands: to be run in this order.
        remark: what the commands change beside that; empty if nothing.
    """

    summary: str
    problems: list[str]
    commands: list[str]
    remark: str = ""

    @property
    def text(self) -> str:
        """All but the commands."""
        return str(complain(self.summary, self.problems, self.remark))

    def error(self) -> SemiSupervisedError:
        first = "Run, in this order:" if len(self.commands) > 1 else "Run:"
        return SemiSupervisedError("\n".join([self.text, first, *self.commands]))


@dataclass(frozen=True)
class _Named:
    """A plans file: its name and content."""

    name: str
    plans: Mapping[str, Any]


def refuse_outdated(
    base: str, plans: Mapping[str, Any], configurations: Iterable[str], dataset_json: Mapping[str, Any]
) -> None:
    """Raise SemiSupervisedError for what :func:`find_outdated` finds."""
    found = find_outdated(base, plans, configurations, dataset_json)
    if found is not None:
        raise found.error()


def find_outdated(
    base: str, plans: Mapping[str, Any], configurations: Iterable[str], dataset_json: Mapping[str, Any]
) -> Outdated | None:
    """A plans copy that is older than its source, or labelled cases that were not preprocessed with these plans.

    Args:
        base: nnUNet_preprocessed/DatasetXXX_Name.
        plans: content of the plans file.
        configurations: to look at.
        dataset_json: of the labelled cases.
    """
    known = data_identifiers(plans)
    wanted = [name for name in configurations if name in known]
    line = _lineage(base, plans)
    return _copy(base, line, wanted, dataset_json) or _data(base, line, wanted, dataset_json)


def outdated_copy(base: str, plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> Outdated | None:
    """The same for a copy alone and all its preprocessed configurations; the data are not looked at for None."""
    found = data_identifiers(plans).items()
    preprocessed = [name for name, folder in found if unlabeled_identifiers(os.path.join(base, folder))]
    return _copy(base, _lineage(base, plans), preprocessed, dataset_json)


def _lineage(base: str, plans: Mapping[str, Any]) -> list[_Named]:
    """These plans, those that they are a copy of, and so on to plans that are no copy."""
    line = [_Named(str(plans.get("plans_name")), plans)]
    while (name := source_of(base, line[-1].plans)) is not None and name not in [known.name for known in line]:
        content = read_plans(os.path.join(base, f"{name}.json"))
        assert content is not None  # source_of has read it
        line.append(_Named(name, content))
    return line


def _copy(base: str, line: list[_Named], wanted: list[str], dataset_json: Mapping[str, Any]) -> Outdated | None:
    own, source = line[0], line[-1]
    for ancestor in line[:0:-1]:
        differing = {c: keys for c in wanted if (keys := differences(own.plans, ancestor.plans, c))}
        if differing:
            break
    else:
        return None
    commands = []
    for configuration in wanted:
        commands += _data_commands(base, own, source, configuration, dataset_json, by_date=True)
    for copy, origin in reversed([*pairwise(line)]):
        if copy is own or any(differences(copy.plans, source.plans, c) for c in data_identifiers(copy.plans)):
            commands += _rewriting(base, copy, origin)
    lost = [key for key in KEPT if any(_is_lost(own.plans, source.plans, c, key) for c in wanted)]
    return Outdated(
        f"{own.name} is older than {source.name}: write it again. Both use the same preprocessed data, but differ in",
        [f"{configuration}: {', '.join(keys)}" for configuration, keys in differing.items()],
        commands,
        f"Its {' and '.join(lost)} are then those of {source.name}; your own changes have to be repeated."
        if lost
        else "",
    )


def _data(base: str, line: list[_Named], wanted: list[str], dataset_json: Mapping[str, Any]) -> Outdated | None:
    own, source = line[0], line[-1]
    problems, commands, fitting = [], [], ""
    for configuration in wanted:
        folder = _folder(base, own, configuration)
        found = contradictions(folder, own.plans, configuration)
        problems += [f"{folder}: {problem}" for problem in found]
        if found:
            fitting = fitting or _fitting(base, source, configuration)
            commands += _data_commands(base, own, source, configuration, dataset_json)
    if not problems:
        return None
    if fitting:
        planner = source.plans.get("experiment_planner_used", "ExperimentPlanner")
        words = ["nnUNetv2_plan_experiment", "-d", str(dataset_id(base)), "-pl", planner]
        commands = [shlex.join([*words, "-overwrite_plans_name", source.name])]
        commands += [c for copy, origin in reversed([*pairwise(line)]) for c in _rewriting(base, copy, origin)]
    fits = f" They fit {fitting}, which is the newer one." if fitting else ""
    return Outdated(
        f"The labelled cases were preprocessed with other settings than those of {own.name}.{fits}",
        problems,
        list(dict.fromkeys(commands)),
    )


def _fitting(base: str, source: _Named, configuration: str) -> str:
    """Other plans of nnU-Net's for the same data (those of its residual networks) that do not contradict them."""
    folder = _folder(base, source, configuration)
    for name, other in plans_beside(base, source.plans):
        sharing = counterpart(source.plans, other, configuration)
        if sharing is None or source_of(base, other) is not None or BLOCK in other:
            continue
        if differences(source.plans, other, configuration) and not contradictions(folder, other, sharing):
            return name
    return ""


def _data_commands(
    base: str,
    own: _Named,
    source: _Named,
    configuration: str,
    dataset_json: Mapping[str, Any],
    by_date: bool = False,
) -> list[str]:
    """What has to be preprocessed again so that the data of a configuration are those of the source.

    With ``by_date`` labelled cases also count as old if they are older than the plans file of the source.
    """
    name = counterpart(own.plans, source.plans, configuration)
    if name is None:
        return []
    folder, words = _folder(base, own, configuration), f"-d {dataset_id(base)} -c {name}"
    stale = not unlabeled_identifiers(folder) or bool(contradictions(folder, source.plans, name))
    if by_date:
        stale = stale or older_than(folder, os.path.join(base, f"{source.name}.json"))
    commands = [f"nnUNetv2_preprocess {words} -plans_name {source.name}"] if stale else []
    pool, settings = unlabeled_folder(folder), settings_hash(source.plans, name, dataset_json)
    old = [case for case in unlabeled_identifiers(pool) if made_with_other_settings(pool, case, settings)]
    return commands + commands_to_make_again(base, pool, old, f"nnunet_ssl preprocess {words} -p {source.name}")


def _rewriting(base: str, copy: _Named, source: _Named) -> list[str]:
    path = os.path.join(base, f"{copy.name}.json")
    aside = [] if BLOCK in copy.plans else [shlex.join(["mv", path, f"{path}.old"])]  # not ours to replace
    named = {**copy.plans, "plans_name": copy.name}
    return [*aside, rewriting_command(dataset_id(base), named, source.name, source.plans)]


def _folder(base: str, named: _Named, configuration: str) -> str:
    return os.path.join(base, data_identifiers(named.plans)[configuration])


def _is_lost(plans: Mapping[str, Any], source: Mapping[str, Any], configuration: str, key: str) -> bool:
    """Whether the copy has a value of its own that :func:`rewriting_command` does not repeat."""
    name = counterpart(plans, source, configuration)
    if name is None or key in plans.get(BLOCK, {}).get(CHANGED, {}).get(configuration, ()):
        return False
    own, other = (
        PlansManager(dict(content)).get_configuration(which).configuration.get(key)
        for content, which in ((plans, configuration), (source, name))
    )
    return bool(own != other)
