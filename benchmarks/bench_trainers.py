"""The trainers and plans that the scripts of this folder measure."""

from __future__ import annotations

import argparse
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from bench_plans import builtin_plans

STOCK = "nnUNetTrainer"


def chosen_plans(args: argparse.Namespace) -> tuple[dict, dict, str]:
    """(plans, dataset.json, configuration) that were asked for, with the settings that were given.

    Raises:
        SystemExit: no preprocessed dataset has the id, or no plans of that name.
    """
    if args.d is not None:
        files = list(Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{args.d:03d}_*/{args.p}.json"))
        if len(files) != 1:
            raise SystemExit(f"dataset {args.d} has {len(files)} plans {args.p} in {os.environ['nnUNet_preprocessed']}")
        plans, dataset_json = (json.loads(p.read_text()) for p in (files[0], files[0].with_name("dataset.json")))
        configuration = args.c
    elif args.plans:
        plans, dataset_json = (json.loads(p.read_text()) for p in (args.plans, args.dataset_json))
        configuration = args.c
    else:
        plans, dataset_json = builtin_plans(args.dimensions)
        configuration = args.c or ("3d_fullres" if args.dimensions == 3 else "2d")
    plans["nnunet_ssl"] = {"hyperparameters": args.hyperparameters}
    return plans, dataset_json, configuration


def make_trainer(
    name: str, plans: dict, configuration: str, dataset_json: dict, device: torch.device, fold: int | str = "all"
) -> Any:
    """The trainer of that name, silent and past its warm-up; see nnunet_ssl.planning.stand_in."""
    from nnunet_ssl.planning import stand_in

    return stand_in.make_trainer(trainer_class(name), plans, configuration, dataset_json, device, fold)


def trainer_class(name: str) -> type:
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with redirect_stdout(open(os.devnull, "w")):
        return recursive_find_trainer_class_by_name(name)
