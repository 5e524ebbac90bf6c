"""Writes OUT/report: the table of rounds, the selections, pictures of a few cases, as one page and as text."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from nnunet_ssl.data.splits import stored_splits
from nnunet_ssl.evaluation.benchmark import provenance
from nnunet_ssl.evaluation.benchmark.results import model_folder
from nnunet_ssl.evaluation.pages import render
from nnunet_ssl.evaluation.report.content import FigureFile, Part, Report, Section
from nnunet_ssl.evaluation.report.quantities import QUANTITIES
from nnunet_ssl.evaluation.report.write import to_markdown
from nnunet_ssl.selftrain.keys import Keys
from nnunet_ssl.selftrain.report.notes import DEFINITIONS, notes_on_rounds, notes_on_selection
from nnunet_ssl.selftrain.report.pictures import FOLDER, picture
from nnunet_ssl.selftrain.report.rounds import LONG, round_name, rounds_table
from nnunet_ssl.selftrain.report.tables import cases_text, class_text, coverage_text, read_selection, rounds_text
from nnunet_ssl.selftrain.report.values import Result, results_of
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.warnings import warnings
from nnunet_ssl.system.whole_files import write_whole

UNIT = "mm"


def write_report(run: Run) -> str:
    """Write index.html, report.md, rounds.csv and figures/*.png of what is there so far.

    Returns:
        What to say about it: the headline, if there is one, and where the page is.
    """
    keys = Keys(run)
    results = results_of(run, keys)
    table = rounds_table(run, keys, results, stored_splits(run.base).groups) if results else pd.DataFrame()
    sections = _sections(run, keys, results, table)
    report = Report(
        f"Semi-supervised self-training on {run.settings.dataset}, {run.settings.configuration}",
        [*headline(run, table), *warnings(run.settings), *_model(run, keys)],
        sections,
        DEFINITIONS,
        _provenance(run),
    )
    target = Path(run.output, "report")
    contents = {figure.file: figure.png for section in sections for figure in section.figures}
    texts = {
        "rounds.csv": table.to_csv(index=False, lineterminator="\n"),
        "report.md": render("report.md", report=report, markdown=to_markdown),
        "index.html": render("report.html", report=report),
    }
    contents |= {name: text.encode(errors="replace") for name, text in texts.items()}
    (target / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_whole(target / name, content)
    return "\n".join([*headline(run, table), f"Table and pictures: {target / 'index.html'}"])


def headline(run: Run, table: pd.DataFrame) -> list[str]:
    """One sentence on the last round, which no look at validation has chosen; none before it is trained."""
    if table.empty:
        return []
    dice = {row["row"]: row["dice"] for row in table.to_dict("records")}
    last, first, text = dice.get(round_name(run.settings.rounds)), dice.get(round_name(0)), QUANTITIES["dice"].text
    if last is None or first is None or run.settings.rounds == 0:
        return []
    long = f", and {text(dice[LONG])} % when trained as long as all rounds" if LONG in dice else ""
    cases = len(run.fold.val)
    return [
        f"After round {run.settings.rounds}: Dice {text(last)} % on {cases} validation cases; the labelled cases alone "
        f"give {text(first)} %{long}."
    ]


def _sections(run: Run, keys: Keys, results: list[Result], table: pd.DataFrame) -> list[Section]:
    sections = []
    if results:
        part = Part(rounds_text(table, UNIT), notes_on_rounds(run), _unfinished(keys), [class_text(run, results)])
        sections.append(Section("Rounds", [part]))
    for number in range(1, run.settings.rounds + 1):
        selection = read_selection(run, number)
        if selection is None:
            continue
        figure, problems = picture(run, number, selection)
        figures: list[FigureFile] = [figure] if figure is not None else []
        notes = [*warnings(run.settings), *notes_on_selection(selection)]
        part = Part(coverage_text(run, selection), notes, [], [cases_text(selection)])
        sections.append(Section(f"Selection of round {number}", [part], [], figures, problems))
    return sections


def _unfinished(keys: Keys) -> list[str]:
    return [step_id.replace("__", " ") for step_id, step in keys.steps.items() if not keys.is_complete(step)]


def _model(run: Run, keys: Keys) -> list[str]:
    """Where the model of the last round is, once it is trained."""
    last = run.settings.rounds
    if run.settings.rounds and not os.path.isfile(run.selection_file(last)):
        return []
    training = keys.model(last, run.main_member)
    if not os.path.isfile(training.checkpoint_file):
        return []
    words = ["nnUNetv2_export_model_to_zip", "-d", training.dataset, "-c", training.configuration]
    words += ["-f", str(training.fold), "-tr", training.trainer, "-p", training.plans, "-o", "MODEL.zip"]
    return [f"The model is in {model_folder(training)}; to take it elsewhere: {' '.join(words)}"]


def _provenance(run: Run) -> list[tuple[str, str]]:
    settings = run.settings
    shown = {
        name: value
        for name, value in vars(settings).items()
        if name not in ("dataset", "configuration", "datasets") and value not in (None, {})
    }
    return [
        ("settings", ", ".join(f"{name}={value}" for name, value in shown.items())),
        ("students' datasets", ", ".join(settings.datasets[: settings.rounds]) or "none"),
        ("versions", ", ".join(f"{name} {version}" for name, version in provenance.versions().items())),
        ("revision", provenance.git_revision() or "an installed package"),
    ]
