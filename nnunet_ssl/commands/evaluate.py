"""`nnunet_ssl evaluate`: metrics of predictions, per case and class."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from nnunetv2.configuration import default_num_processes

from nnunet_ssl.data.text_files import read_json, read_text
from nnunet_ssl.errors import complain
from nnunet_ssl.evaluation.scoring.conventions import CONVENTIONS
from nnunet_ssl.evaluation.scoring.evaluate import TOLERANCE, evaluate_folder
from nnunet_ssl.evaluation.scoring.markdown import tables
from nnunet_ssl.evaluation.scoring.results import STEM, Evaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare predictions (of semi-supervised or any other training) with reference labels: Dice, Jaccard, HD95, "
        "ASD, ASSD and NSD per case and class, by MONAI, in mm on the original grid. Reads the folders of "
        "nnUNetv2_predict and the validation folders of trained folds. Missed and false-positive structures count "
        "with the worst value, and their number is given. Writes evaluation.json, evaluation.csv and evaluation.md."
    )
    parser.add_argument("-ref", required=True, metavar="LABELS", help="folder of the reference labels (labelsTr)")
    parser.add_argument("-pred", required=True, metavar="PREDICTIONS", help="folder of the predictions")
    parser.add_argument("-o", metavar="FOLDER", help="folder of the results; default: that of the predictions")
    parser.add_argument(
        "--voxel",
        action="store_true",
        help="distances in voxels as if the spacing were 1, the convention of many papers' tables; default: mm",
    )
    parser.add_argument(
        "--convention",
        choices=tuple(CONVENTIONS),
        help="score as the tables of a publication do, in voxels: "
        + "; ".join(f"{c.name}: {c.title}" for c in CONVENTIONS.values()),
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=TOLERANCE,
        metavar="MM",
        help=f"of the NSD, in mm (in voxels with --voxel); default: {TOLERANCE:g}",
    )
    parser.add_argument(
        "-np",
        type=int,
        default=default_num_processes,
        metavar="N",
        help=f"number of processes; default: {default_num_processes} (nnUNet_def_n_proc), at most one per core, "
        "and only one where there is little to do",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        metavar="CASE",
        help="evaluate these cases only: ids, or one file with them (a JSON list, or one per line); default: the "
        "validation cases where PREDICTIONS is the validation folder of a fold, else all reference labels",
    )
    parser.add_argument(
        "-djfile",
        metavar="FILE",
        help="dataset.json that names the classes; default: the one with the predictions or beside the labels; "
        "without one, every value that the files hold is a class",
    )


def run(args: argparse.Namespace) -> int:
    evaluation = evaluate_folder(
        args.ref,
        args.pred,
        args.o,
        voxel=args.voxel,
        convention=args.convention,
        tolerance=args.tolerance,
        processes=args.np,
        cases=None if args.cases is None else read_cases(args.cases),
        dataset_json=args.djfile,
    )
    print("\n".join(report(evaluation, args.pred if args.o is None else args.o)))
    return 0


def read_cases(given: Sequence[str]) -> list[str]:
    """Case ids as given, or those in the one file that was given.

    Raises:
        SemiSupervisedError: the file holds no list of ids.
    """
    if len(given) != 1 or not os.path.isfile(given[0]):
        return list(given)
    if given[0].lower().endswith(".json"):
        cases = read_json(given[0])
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise complain(f'{given[0]} must hold a list of case ids: ["case_1", "case_2"].')
    else:
        cases = [line.strip() for line in read_text(given[0]).splitlines() if line.strip()]
    if not cases:
        raise complain(f"{given[0]} names no case.")
    return list(cases)


def report(evaluation: Evaluation, folder: str) -> list[str]:
    """The tables, and where the files are."""
    names = ", ".join(f"{STEM}.{ending}" for ending in ("json", "csv", "md"))
    notes = [f"NOTE: {note}" for note in evaluation.notes]
    return [tables(evaluation.to_json()), "", *notes, f"Per case, with definitions: {names} in {folder}"]
