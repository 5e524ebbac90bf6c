"""Operations and memory of a training step from the shapes of its tensors alone; step_time.py --count."""

from __future__ import annotations

import argparse
from typing import Any

from bench_trainers import STOCK, chosen_plans, trainer_class


def count_steps(args: argparse.Namespace) -> dict[str, Any]:
    """Operations and memory of the step of each trainer, beside nnU-Net's on as many patches."""
    from nnunet_ssl.planning.rehearsal import StepCost, rehearse

    plans, dataset_json, configuration = chosen_plans(args)
    stock: dict[int, StepCost] = {}
    rows = []
    for name in [STOCK, *args.tr]:
        options = {"mixed_precision": not args.float32}
        cost = rehearse(trainer_class(name), plans, configuration, dataset_json, **options)
        if cost.images not in stock:
            counted = rehearse(trainer_class(STOCK), plans, configuration, dataset_json, patches=cost.images, **options)
            stock[cost.images] = counted
        rows.append(
            {
                "trainer": name,
                "patches": cost.images,
                "forward_gflop": cost.forward / 1e9,
                "backward_gflop": cost.backward / 1e9,
                "flops_ratio": cost.operations / stock[cost.images].operations,
                "saved_gib": cost.kept / 2**30,
                "saved_ratio": cost.kept / stock[cost.images].kept,
                "peak_gib": cost.peak / 2**30,
            }
        )
    patch = plans["configurations"][configuration]["patch_size"]
    return {"what": f"{configuration}, patch {patch}, counted", "rows": rows}
