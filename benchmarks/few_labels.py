"""Train trainers side by side on a real dataset with few labels, on a plan that a CPU can train, over several
seeds.

    python benchmarks/few_labels.py --raw FOLDER_OF_DATASETS -d 4 --count 6 -tr nnUNetTrainerSKCDF --seeds 0 1 2 -o OUT

Everything goes through the commands a user types. Reported: the Dice on the validation cases of the fold, and for
semi-supervised trainers the Dice of the pseudo-labels of the withheld cases at the beginning and at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd

from nnunet_ssl.trainers import CONTROL, find_trainer

STRIDES = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="folder that holds DatasetXXX_Name (it is only read)")
    parser.add_argument("-d", type=int, required=True)
    parser.add_argument("-f", type=int, default=0)
    parser.add_argument("-tr", nargs="+", default=["nnUNetTrainerMeanTeacher"])
    parser.add_argument("--count", type=int, default=6, help="labelled cases")
    parser.add_argument("--groups", help="JSON case -> subject")
    parser.add_argument("--patch", type=int, nargs=3, default=[32, 40, 32])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=25, help="per epoch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hyperparameters", nargs="*", default=[], help="as for `nnunet_ssl plans`")
    parser.add_argument("-o", type=Path, required=True, help="working folder; finished runs in it are kept")
    return parser.parse_args()


def shrink(path: Path, patch: list[int]) -> None:
    """nnU-Net's 3d_fullres plan with four narrow stages."""
    plans = json.loads(path.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"], configuration["batch_size"] = patch, 2
    configuration["architecture"]["arch_kwargs"].update(
        n_stages=4,
        features_per_stage=[8, 16, 32, 64],
        kernel_sizes=[[3, 3, 3]] * 4,
        strides=STRIDES,
        n_conv_per_stage=[2] * 4,
        n_conv_per_stage_decoder=[2] * 3,
    )
    path.write_text(json.dumps(plans, indent=2))


def run(*command: object) -> None:
    words = [str(c) for c in command]
    words[0] = str(Path(sysconfig.get_path("scripts"), words[0]))
    print("$", *[Path(words[0]).name, *words[1:]], flush=True)
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def prepare(args: argparse.Namespace) -> str:
    """Plan, preprocess, split and settings; returns the name of the dataset."""
    (dataset,) = (p for p in args.raw.iterdir() if p.name.startswith(f"Dataset{args.d:03d}_"))
    raw, preprocessed = (args.o / n for n in ("nnUNet_raw", "nnUNet_preprocessed"))
    os.environ |= {"nnUNet_raw": str(raw), "nnUNet_preprocessed": str(preprocessed)}
    base = preprocessed / dataset.name
    if (base / "splits_ssl.json").exists():
        return dataset.name
    raw.mkdir(parents=True, exist_ok=True)
    if not (raw / dataset.name).exists():
        (raw / dataset.name).symlink_to(dataset.resolve())
    run("nnUNetv2_plan_and_preprocess", "-d", args.d, "-c", "3d_fullres", "-np", 2, "-npfp", 2)
    folds = args.raw / "splits_final.json"
    if folds.exists():  # folds that keep a subject together
        (base / "splits_final.json").write_bytes(folds.read_bytes())
    shrink(base / "nnUNetPlans.json", args.patch)
    groups = ["--groups", args.groups] if args.groups else []
    run("nnunet_ssl", "splits", "-d", args.d, "--counts", args.count, *groups)
    return dataset.name


def settle(args: argparse.Namespace, seed: int) -> str:
    """Plans with the settings of one seed; returns their name."""
    name = f"nnUNetPlans_few_s{seed}"
    training = [f"num_epochs={args.epochs}", f"num_iterations_per_epoch={args.steps}", "optimizer=adamw"]
    training += ["initial_lr=0.003", "num_val_iterations_per_epoch=2", f"seed={seed}"]
    monitored = [t for t in args.tr if hasattr(find_trainer(t).Hyperparameters, "monitor_withheld_labels")]
    hyperparameters = [f"{t}:monitor_withheld_labels=true" for t in monitored] + args.hyperparameters
    settings = ["--training", *training, "--hyperparameters", *hyperparameters, "--overwrite"]
    run("nnunet_ssl", "plans", "-d", args.d, "--split", f"n{args.count}", "--name", name, *settings)
    return name


def main() -> None:
    args = arguments()
    args.o = args.o.resolve()
    os.environ["nnUNet_results"] = str(args.o)
    for name, value in {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}.items():
        os.environ.setdefault(name, value)
    from nnunet_ssl.discovery import register

    register()
    dataset = prepare(args)
    rows = []
    for seed in args.seeds:
        plans = settle(args, seed)
        for trainer in [CONTROL, *args.tr]:
            fold = args.o / dataset / f"{trainer}__{plans}__3d_fullres" / f"fold_{args.f}"
            if not (fold / "validation" / "summary.json").exists():
                words = ("nnUNetv2_train", args.d, "3d_fullres", args.f, "-p", plans, "-tr", trainer)
                run(*words, "-device", "cpu")
            dice = json.loads((fold / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
            row = {"seed": seed, "trainer": trainer, "dice": dice}
            if (fold / "semi_supervised.csv").exists():
                curves = pd.read_csv(fold / "semi_supervised.csv")
                if "true_dice" in curves:
                    row |= {"pseudo_first": curves["true_dice"].iloc[0], "pseudo_last": curves["true_dice"].iloc[-1]}
            rows.append(row)
            print(row, flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(args.o / "few_labels.csv", index=False)
    print(table.round(3).to_string(index=False))
    for trainer, group in table.groupby("trainer", sort=False)["dice"]:
        spread = f", standard deviation over seeds {statistics.stdev(group):.3f}" if len(group) > 1 else ""
        print(f"{trainer}: {group.mean():.3f}{spread}")


if __name__ == "__main__":
    main()
