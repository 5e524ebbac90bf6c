"""Which cases of a selection are shown, and their arrays."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_ssl.data.quiet import captured_output
from nnunet_ssl.evaluation.report.content import FigureFile
from nnunet_ssl.evaluation.scoring.masks import mask_of
from nnunet_ssl.selftrain.report.overlay import Shown, draw
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.selection.vote import disagreement
from nnunet_ssl.selftrain.settings import IGNORE
from nnunet_ssl.selftrain.student_dataset import ignore_value

FOLDER = "figures"


def picture(run: Run, round_number: int, selection: pd.DataFrame) -> tuple[FigureFile | None, list[str]]:
    """The figure of a round, and what could not be shown and why."""
    shown, notes = [], []
    for case, why in examples(selection).items():
        try:
            with captured_output():
                shown.append(read_case(run, round_number, case, why))
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            notes.append(f"No picture of {case}: {error}.")
    if not shown:
        return None, notes
    ignore = ignore_value(run) if run.settings.voxels == IGNORE else None
    png = draw(shown, run.labels.classes, ignore)
    caption = (
        "The slice with the largest area of the chosen label. Left: the image; middle: voxels on which the teachers "
        "differ; right: the label that students get."
    )
    title = f"Round {round_number}: cases, teachers' disagreement and chosen label"
    return FigureFile(title, caption, f"{FOLDER}/round_{round_number}_cases.png", png), notes


def examples(selection: pd.DataFrame) -> dict[str, str]:
    """Case -> why it is shown: the middle and the least sure of the kept ones, the surest of the dropped ones."""
    kept, dropped = (selection[selection["kept"].astype(bool) == value] for value in (True, False))
    chosen: dict[str, str] = {}
    if len(kept):
        chosen[str(kept["case"].iloc[len(kept) // 2])] = "kept, in the middle"
        chosen.setdefault(str(kept["case"].iloc[-1]), "kept, least sure")
        chosen.setdefault(str(kept["case"].iloc[0]), "kept, surest")
    if len(dropped):
        chosen.setdefault(str(dropped["case"].iloc[0]), "dropped, surest")
    return chosen


def read_case(run: Run, round_number: int, case: str, why: str) -> Shown:
    """Arrays of one case, all on the grid of its image.

    Raises:
        OSError, RuntimeError, ValueError: a file is missing or cannot be read.
    """
    reader = recursive_find_reader_writer_by_name(run.plans["image_reader_writer"])()
    image, properties = reader.read_images(tuple(run.pool[case]))
    name = case + run.ending
    folders = [run.teacher_folder(round_number, teacher) for teacher in range(run.settings.n_teachers)]
    maps = [reader.read_seg(os.path.join(folder, name))[0][0] for folder in folders]
    chosen = reader.read_seg(os.path.join(run.labels_folder(round_number), name))[0][0].astype(np.int16)
    if any(labels.shape != image.shape[1:] for labels in (*maps, chosen)):
        raise ValueError("labels and image are not on one grid")
    found = np.zeros(chosen.shape, dtype=bool)
    for labels in maps:
        for kind in run.labels.classes:
            found |= mask_of(labels, kind.values)
    z, y, x = (float(step) for step in properties["spacing"])
    return Shown(case, why, image[0], chosen, disagreement(maps), found, (z, y, x))
