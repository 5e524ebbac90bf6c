"""Puts together what the report says: sections, definitions, and how the results were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from nnunet_ssl.evaluation.benchmark.jobs import COMPLETE
from nnunet_ssl.evaluation.report.content import Part, Report, Section
from nnunet_ssl.evaluation.report.drawing import Style
from nnunet_ssl.evaluation.report.figures import make_figures, make_overview
from nnunet_ssl.evaluation.report.load import TEST, Benchmark, Place
from nnunet_ssl.evaluation.report.notes import notes_of
from nnunet_ssl.evaluation.report.published import beside, protocol_of
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.subjects import Subjects
from nnunet_ssl.evaluation.report.tables import Table, tables_by_place
from nnunet_ssl.evaluation.report.text_tables import BEST, class_table, main_table, published_table, spread_table

TITLE = "Semi-supervised segmentation benchmark"
COLUMNS = (
    (
        "mean \u00b1 std",
        "the value of a case is the mean over those foreground classes that have a value, averaged over seeds; mean "
        "and sample standard deviation are over the cases of all folds",
    ),
    (
        "difference",
        "mean of the paired differences (trainer minus control, same case, fold and seed), with its 95 % percentile "
        "bootstrap interval in brackets. A positive difference is an improvement in an overlap, a negative one in a "
        "distance",
    ),
    (
        "p (Holm)",
        "Wilcoxon's signed-rank test of the paired differences, with Holm's correction for the number of trainers "
        "compared in the table. Below 0.05, p and difference are bold and the direction is named; nothing else is bold",
    ),
    (
        "missed, false positive",
        "structures of the reference of which nothing was predicted, and predicted structures that the reference does "
        "not have. They count with overlap 0 and the image diagonal as distance; what is in neither is left out. "
        "\u201cok only\u201d is the mean without missed and false-positive structures",
    ),
    (
        "s per step",
        "seconds per training step, and (\u00d7) the ratio to the control's on the same folds and seeds",
    ),
    (
        "memory",
        "peak memory (RSS) of all processes of a training run together and, on a GPU, of its memory; the highest of "
        "all training runs",
    ),
)


def assemble(
    benchmark: Benchmark,
    tables: Sequence[Table],
    published: pd.DataFrame,
    control: str,
    subjects: Mapping[str, Subjects],
    looks: Mapping[str, Style],
    cases: Sequence[str] | None,
) -> Report:
    """The whole report. Arguments as of :func:`nnunet_ssl.evaluation.report.write.write_report`, read already."""
    sections = []
    for place, of_place in tables_by_place(tables).items():
        figures, notes = make_figures(benchmark, of_place, control, looks, cases)
        parts = [_part(t, benchmark, published, notes_of(t, control, subjects[place.dataset])) for t in of_place]
        sections.append(Section(section_title(place), parts, make_overview(of_place, looks), figures, notes))
    return Report(
        TITLE, _summary(benchmark, tables, control), sections, _definitions(benchmark), _provenance(benchmark)
    )


def section_title(place: Place) -> str:
    """Dataset, configuration, cases; the plans where they are not nnU-Net's default."""
    plans = "" if place.plans == "nnUNetPlans" else f", {place.plans}"
    cases = "test cases" if place.scope == TEST else "validation cases of the folds"
    return f"{place.dataset}, {place.configuration}{plans}: {cases}"


def _part(table: Table, benchmark: Benchmark, published: pd.DataFrame, notes: list[str]) -> Part:
    reported = published_table(table, beside(table, published, protocol_of(benchmark.manifest, table.place.dataset)))
    more = [spread_table(table), *([class_table(table)] if len(table.classes) > 1 else [])]
    return Part(main_table(table), notes, table.incomplete, [*more, *([reported] if reported else [])])


def _summary(benchmark: Benchmark, tables: Sequence[Table], control: str) -> list[str]:
    lost = [run.problem for run in benchmark.runs if run.state != COMPLETE]
    sentences = [f"{len(benchmark.runs) - len(lost)} of {len(benchmark.runs)} training runs are complete."]
    in_tables = {entry for table in tables for entry in table.incomplete}
    sentences += [f"Not complete, and in no table: {entry}" for entry in lost if entry not in in_tables]
    if benchmark.left_out:
        sentences.append(f"Left out, because the manifest no longer lists them: {', '.join(benchmark.left_out)}.")
    if tables:
        sentences.append(
            f"Every trainer is compared with the control, {control}, which was trained on the same labelled cases "
            "but without the unlabelled ones. All numbers are those of the network at the end of training"
            + (f", but for those marked {BEST}." if any(table.chosen for table in tables) else ".")
        )
    else:
        sentences.append("There is nothing to compare yet.")
    return sentences


def _definitions(benchmark: Benchmark) -> list[tuple[str, str]]:
    """The columns, then the metrics as the evaluations define them."""
    found: dict[str, dict[str, None]] = {}
    for run in benchmark.runs:
        for evaluation in run.evaluations.values():
            definitions = evaluation.get("definitions")
            for key, text in definitions.items() if isinstance(definitions, dict) else ():
                if key in QUANTITIES or key == "unit":
                    found.setdefault(QUANTITIES[key].title if key in QUANTITIES else "distances", {})[str(text)] = None
    return [*COLUMNS, *((term, "; or ".join(texts)) for term, texts in found.items())]


def _provenance(benchmark: Benchmark) -> list[tuple[str, str]]:
    """Versions, revision and devices over all complete training runs, and the settings."""
    done = [run for run in benchmark.runs if run.state == COMPLETE]
    entries = []
    names = dict.fromkeys(name for run in done for name in run.record.get("versions") or {})
    for name in names:
        entries.append((name, _all_of(str((run.record.get("versions") or {}).get(name)) for run in done)))
    entries.append(("git revision", _all_of(str(run.record.get("git_revision") or "unknown") for run in done)))
    entries.append(("device", _all_of(str(run.record.get("device") or "unknown") for run in done)))
    entries.append(("steps per training run", _all_of(str(run.record.get("steps") or "unknown") for run in done)))
    for key, title in (("training", "training settings"), ("hyperparameters", "hyper-parameters")):
        found = [(run.record.get("settings") or {}).get(key) or {} for run in done]
        plain = [json.dumps({k: v for k, v in part.items() if k != "seed"}, sort_keys=True) for part in found]
        entries.append((title, _all_of(plain)))
    return entries


def _all_of(texts: Iterable[str]) -> str:
    return "; ".join(sorted(set(texts))) or "unknown"
