"""What the volume constraint of the Lagrange-duality trainers does: multipliers frozen at zero against dual ascent.

    nnunet_ssl plans -d 4 -c 3d_fullres --patch 32 40 32 --batch 2 --name nnUNetPlans_small
    nnunet_ssl splits -d 4 --counts 6
    python benchmarks/volume_constraint.py -d 4 -o OUT
    python benchmarks/volume_constraint.py -d 4 -tr nnUNetTrainerCMAformer --epochs 40 -o OUT

Trains the same trainer twice from the same weights on a plan that a CPU can train, and after every few epochs compares
the predicted with the true volume of each class on the same validation patches. Reported: the error of the mean volume
and the mean error of a patch, as shares of the patch in percent, the Dice there, and the largest multiplier, which
should settle below its limit.
"""

from __future__ import annotations

import argparse
import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pandas as pd
import torch

RUNS = {"frozen": {"multiplier_step": 0.0, "norm_budget": 0.0}, "ascent": {}}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d", type=int, required=True)
    parser.add_argument("-f", type=int, default=0)
    parser.add_argument("-tr", default="nnUNetTrainerLDC")
    parser.add_argument("-p", default="nnUNetPlans_small", help="plans")
    parser.add_argument("--split", default="n6", help="labelled cases")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25, help="per epoch")
    parser.add_argument("--every", type=int, default=5, help="epochs between two looks at the validation patches")
    parser.add_argument("--batches", type=int, default=10, help="of validation patches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hyperparameters", type=json.loads, default={}, help="JSON, for both runs")
    parser.add_argument("-o", type=Path, required=True, help="working folder")
    return parser.parse_args()


@torch.no_grad()
def look(trainer: Any, batches: list[dict[str, Any]]) -> dict[str, float]:
    """Volumes and Dice on the validation patches, per foreground class, counted from 1."""
    from nnunet_ssl.losses.lagrangian import class_volumes
    from nnunet_ssl.training.deep_supervision import finest

    trainer.network.eval()
    volumes, hits = [], []
    for batch in batches:
        logits = finest(trainer.network(batch["data"].to(trainer.device))).float()
        target = finest(batch["target"]).to(trainer.device).clamp(min=0)
        volumes += [torch.stack(class_volumes(z[None], y[None])) for z, y in zip(logits, target, strict=True)]
        truth = torch.cat([target == c for c in range(1, logits.shape[1])], 1)
        guess, inside = trainer.targets.decided_masks(logits), [0, *range(2, logits.ndim)]
        hits.append(torch.stack([(truth & guess).sum(inside), truth.sum(inside) + guess.sum(inside)]))
    found, overlap = torch.stack(volumes).double(), torch.stack(hits).double().sum(0)  # (patches, 2, F), (2, F)
    error = found[:, 0] - found[:, 1]
    row = {}
    for k in range(error.shape[1]):
        row[f"true_volume_{k + 1}"] = 100 * found[:, 1, k].mean().item()
        row[f"error_of_mean_{k + 1}"] = 100 * error[:, k].mean().item()
        row[f"mean_error_{k + 1}"] = 100 * error[:, k].abs().mean().item()
        row[f"dice_{k + 1}"] = (2 * overlap[0, k] / overlap[1, k].clamp(min=1)).item()
    own = trainer.dual.multipliers
    for part, values in own.volume.items():
        row[f"multiplier_{part}"] = values.abs().max().item()
    return row


def train(args: argparse.Namespace, name: str, plans: dict[str, Any], base: Path) -> list[dict[str, Any]]:
    from nnunet_ssl.trainers import find_trainer
    from nnunet_ssl.training.checkpoint import seed_everything

    training = {"num_epochs": args.epochs, "num_iterations_per_epoch": args.steps, "num_val_iterations_per_epoch": 1,
                "optimizer": "adamw", "initial_lr": 0.003, "seed": args.seed}  # fmt: skip
    options = {args.tr: {**args.hyperparameters, **RUNS[name]}}
    block = {"split": args.split, "training": training, "hyperparameters": options}
    own = json.loads(json.dumps(plans)) | {"plans_name": f"volume_{name}", "continue_training": False}
    own["nnunet_ssl"] = block
    dataset_json = json.loads((base / "dataset.json").read_text())
    with redirect_stdout(open(os.devnull, "w")):
        trainer = find_trainer(args.tr)(own, "3d_fullres", args.f, dataset_json, torch.device("cpu"))
        trainer.on_train_start()
        seed_everything(1000 + args.seed)  # the same validation patches, as far as one process loads them
        batches = [next(trainer.dataloader_val) for _ in range(args.batches)]
        seed_everything(args.seed)
    rows = []
    for epoch in range(args.epochs):
        with redirect_stdout(open(os.devnull, "w")):
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
            outputs = [trainer.train_step(next(trainer.dataloader_train)) for _ in range(args.steps)]
            trainer.on_train_epoch_end(outputs)
        if (epoch + 1) % args.every == 0 or epoch + 1 == args.epochs:
            rows.append({"run": name, "epoch": epoch + 1, **look(trainer, batches)})
            print(rows[-1], flush=True)
        trainer.current_epoch += 1
    return rows


def main() -> None:
    args = arguments()
    args.o.mkdir(parents=True, exist_ok=True)
    # models go below OUT; one process, whose random choices are seeded, loads the patches
    os.environ |= {"nnUNet_results": str(args.o.resolve()), "nnUNet_n_proc_DA": "0", "nnUNet_compile": "f"}
    from nnunetv2.paths import nnUNet_preprocessed  # reads the variables when it is imported
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    base = Path(nnUNet_preprocessed, maybe_convert_to_dataset_name(args.d))
    plans = json.loads((base / f"{args.p}.json").read_text())
    table = pd.DataFrame([row for name in RUNS for row in train(args, name, plans, base)])
    table.to_csv(args.o / "volume_constraint.csv", index=False)
    print(table.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
