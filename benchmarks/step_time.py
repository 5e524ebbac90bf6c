"""Time and peak memory of one training step of semi-supervised trainers, as a ratio to nnU-Net's own step.

    python benchmarks/step_time.py                                   # CPU, built-in 3D plan
    python benchmarks/step_time.py --dimensions 2
    python benchmarks/step_time.py --device cuda --compile           # GPU, mixed precision, torch.compile
    python benchmarks/step_time.py --plans PLANS.json --dataset-json DATASET.json -c 3d_fullres
    python benchmarks/step_time.py --both-networks -tr nnUNetTrainerDualNetworks
    python benchmarks/step_time.py -d 4 -c 3d_fullres -tr methods    # plans of a preprocessed dataset, every method
    python benchmarks/step_time.py --loaders -d 4 -c 3d_fullres      # throughput of the loaders on a real dataset
    python benchmarks/step_time.py --count -tr all --plans PLANS.json --dataset-json DATASET.json -c 2d

nnU-Net trains on as many patches as the two streams hold together. The trainers take turns, step by step, within one
run, so that a busy machine slows each of them alike; times are medians, memory is the peak over a few steps. The data
are random: only the work of the step counts. pull_of_epoch is what measuring the pull of each term adds to an epoch,
as a share of it. With --both-networks, nnU-Net also trains the residual (or plain) counterpart of the plans' U-Net, and
time and memory are given as ratios to the sum of nnU-Net's two steps as well.

--count computes nothing: operations (convolutions, products of matrices, attention) and peak memory come from the
shapes of tensors, in mixed precision as on CUDA, or with --float32 as on a CPU. flops_ratio and saved_ratio compare
with nnU-Net's step on as many patches; the latter is of what a step needs beside weights, gradients and optimiser.
The parts of a step (views, forward, backward, optimiser) are given in seconds; with --loaders also what a step waits
for the real loader, and as "starved" its share of the step. A trainer that refuses the plans or needs more memory than
there is does not stop the others: it is listed with the reason.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_trainers import STOCK, chosen_plans, make_trainer, trainer_class
from loader_time import measure_loaders
from step_count import count_steps
from step_parts import LOADER, StepParts

COUNTERPART = "nnUNetTrainer, counterpart"
PRESETS = ("_paper", "_released")


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-tr", nargs="+", default=["nnUNetTrainerSupervised", "nnUNetTrainerMeanTeacher"],
                        help="trainers; all: every one, methods: every one but the presets")  # fmt: skip
    parser.add_argument("-c", default=None, help="configuration of --plans or of the dataset")
    parser.add_argument(
        "-d", type=int, default=None, help="id of a dataset whose plans (with --loaders also data) are taken"
    )
    parser.add_argument("-p", default="nnUNetPlans", help="name of the plans of -d")
    parser.add_argument("--split", help="split of -d whose first fold the loaders read; default: everything")
    parser.add_argument("--plans", type=Path, help="plans file; default: a built-in plan")
    parser.add_argument("--dataset-json", type=Path)
    parser.add_argument("--hyperparameters", type=json.loads, default={}, help="settings block's hyperparameters, JSON")
    parser.add_argument("--dimensions", type=int, choices=(2, 3), default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=math.inf, help="trainers not built by then are left out")
    parser.add_argument("--both-networks", action="store_true", help="compare with nnU-Net on both networks")
    parser.add_argument("--loaders", action="store_true")
    parser.add_argument("--count", action="store_true", help="operations and memory from shapes alone")
    parser.add_argument("--float32", action="store_true", help="count as on a CPU, without mixed precision")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(words)
    if args.tr in (["all"], ["methods"]):
        from nnunet_ssl.trainers import TRAINERS

        args.tr = [name for name in TRAINERS if args.tr == ["all"] or not name.endswith(PRESETS)]
    if args.plans and not (args.dataset_json and args.c):
        parser.error("--plans needs --dataset-json and -c")
    if args.d is not None and (args.plans or not args.c):
        parser.error("-d needs -c, and brings plans of its own in place of --plans")
    if args.loaders and args.d is None:
        parser.error("--loaders needs -d, a preprocessed dataset")
    if args.count and args.loaders:
        parser.error("--count runs no loader; ask for one of --count and --loaders")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA device")
    return args


def sees_unlabeled(trainer: Any) -> bool:
    streams = getattr(trainer, "streams", None)
    return streams is not None and streams.pool


def step_of(
    name: str, args: argparse.Namespace, plans: dict, configuration: str, dataset_json: dict
) -> tuple[StepOf, float]:
    """One training step of the trainer on its share of 2 x batch size patches, and the share of an epoch's steps that
    measure the pull of each term.
    """
    from nnunet_ssl.planning.stand_in import training_batch
    from nnunet_ssl.training.base import nnUNetTrainerSemiSupervised

    device = torch.device(args.device, 0) if args.device == "cuda" else torch.device("cpu")
    if name == COUNTERPART:
        name, plans = STOCK, counterpart_plans(plans, configuration)
    trainer = make_trainer(name, plans, configuration, dataset_json, device)
    size = trainer.configuration_manager.batch_size
    looks: set[int] = set()
    if isinstance(trainer, nnUNetTrainerSemiSupervised):
        looks = trainer.steps_with_a_look()
    batch = training_batch(trainer, size if sees_unlabeled(trainer) else 2 * size, torch.device("cpu"))
    if device.type == "cuda":
        batch = {k: _pin(v) for k, v in batch.items()}

    return StepOf(trainer, batch, looks), len(looks) / trainer.num_iterations_per_epoch


class StepOf:
    """One training step that only trains; with an argument, one in which the pull of each term is measured."""

    def __init__(self, trainer: Any, batch: dict[str, Any], looks: set[int]) -> None:
        from nnunet_ssl.planning.rehearsal import kinds_of_steps

        self.trainer, self.batch, self.looks = trainer, batch, looks
        self.plain = kinds_of_steps(trainer)[-1]  # every tenth is observed besides, which takes passes over the voxels

    def __call__(self, look: bool = False) -> None:
        self.trainer.step = min(self.looks, default=self.plain) if look else self.plain
        self.trainer.train_step(self.batch)
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()


def parts_of_steps(trainer: Any, batch: dict[str, Any], steps: int) -> dict[str, float]:
    """Seconds of the parts of a step, without a loader: the mean of so many."""
    clock = StepParts(trainer, lambda: batch)
    for _ in range(steps):
        clock.step()
    return {f"{part}_s": seconds for part, seconds in clock.means().items() if part != LOADER}


def counterpart_plans(plans: dict, configuration: str) -> dict:
    """The plans with the other U-Net of Dual Networks: residual for plain, plain for residual."""
    from nnunet_ssl.architectures.dual_networks import counterparts

    plans = json.loads(json.dumps(plans))
    architecture = plans["configurations"][configuration]["architecture"]
    pair = counterparts(architecture["network_class_name"], architecture["arch_kwargs"])
    name, kwargs = next((n, k) for n, k in pair if n != architecture["network_class_name"])
    imports = [key for key in architecture["_kw_requires_import"] if key in kwargs]
    architecture.update(network_class_name=name, arch_kwargs=kwargs, _kw_requires_import=imports)
    return plans


def _pin(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _pin(v) for k, v in value.items()}
    return [_pin(v) for v in value] if isinstance(value, list) else value.pin_memory()


def memory_in_child(name: str, args: argparse.Namespace, plans: dict, configuration: str, dataset_json: dict) -> float:
    """Peak resident memory in MiB that building the trainer and three steps take, in a process of its own."""
    torch.set_num_threads(args.threads)
    import nnunet_ssl.training.base  # noqa: F401 - imports are not the step's memory

    trainer_class(name.split(",")[0])  # for external trainers it imports all of nnU-Net's
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    before = _resident_mib("VmRSS")
    warmed(name, args, plans, configuration, dataset_json)
    return _resident_mib("VmHWM") - before


def warmed(
    name: str, args: argparse.Namespace, plans: dict, configuration: str, dataset_json: dict
) -> tuple[StepOf, float, float]:
    """The step and share of `step_of` after three steps, and the peak in MiB of it on a CUDA device, else 0."""
    cuda = args.device == "cuda"
    before = 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    step, share = step_of(name, args, plans, configuration, dataset_json)
    for _ in range(3):
        step()
    return step, share, (torch.cuda.max_memory_allocated() - before) / 2**20 if cuda else 0.0


def _resident_mib(key: str) -> float:
    """Resident memory of this process now (VmRSS) or at its peak (VmHWM)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key))
    return int(line.split()[1]) / 2**10


def measure_steps(args: argparse.Namespace) -> dict[str, Any]:
    from nnunet_ssl.errors import SemiSupervisedError
    from nnunet_ssl.planning.stand_in import write_stand_in

    plans, dataset_json, configuration = chosen_plans(args)
    with tempfile.TemporaryDirectory() as folder:
        write_stand_in(Path(folder), plans, configuration)
        made, memory, failed = {}, {}, {}
        late = time.perf_counter() + args.seconds
        for name in [STOCK, *([COUNTERPART] if args.both_networks else []), *args.tr]:
            if time.perf_counter() > late:
                failed[name] = f"left out after {args.seconds:.0f} s"
                continue
            try:
                step, share, memory[name] = warmed(name, args, plans, configuration, dataset_json)
            except (SemiSupervisedError, torch.OutOfMemoryError) as error:
                failed[name] = str(error)
            else:
                made[name] = step, share
        names = [*made]
        steps = {name: step for name, (step, _) in made.items()}
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(args.steps):
            for name, step in steps.items():
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
        parts = {name: parts_of_steps(step.trainer, step.batch, args.steps) for name, step in steps.items()}
        pulls = {name: pull_of_epoch(*step_and_share) for name, step_and_share in made.items()}
        if args.device == "cpu":
            with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
                memory = {n: pool.apply(memory_in_child, (n, args, plans, configuration, dataset_json)) for n in names}
    patch = plans["configurations"][configuration]["patch_size"]
    rows = []
    for name in names:
        ratios = [t / s for t, s in zip(times[name], times[STOCK], strict=True)]
        rows.append(
            {
                "trainer": name,
                "step_s": statistics.median(times[name]),
                "time_ratio": statistics.median(times[name]) / statistics.median(times[STOCK]),
                "ratio_quartiles": [float(np.quantile(ratios, q)) for q in (0.25, 0.75)],
                "pull_of_epoch": pulls[name],
                "memory_mib": memory[name],
                "memory_ratio": memory[name] / memory[STOCK],
                **parts[name],
            }
        )
    if args.both_networks:
        for row in rows:
            for key in ("step_s", "memory_mib"):
                row[f"{key.split('_')[0]}_of_both"] = row[key] / (rows[0][key] + rows[1][key])
    batch = plans["configurations"][configuration]["batch_size"]
    return {"what": f"{configuration}, patch {patch}, {2 * batch} patches per step", "rows": rows, "failed": failed}


def pull_of_epoch(step: Callable, share: float, turns: int = 3) -> float:
    """What measuring the pull in this share of the steps adds to an epoch, as a share of it."""
    if share == 0:
        return 0.0
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(turns):
        for look, found in seconds.items():
            start = time.perf_counter()
            step(look)
            found.append(time.perf_counter() - start)
    plain, looking = (statistics.median(found) for found in seconds.values())
    return max(looking / plain - 1, 0.0) * share


def describe_machine(device: str) -> str:
    """Device and versions of what computes on it."""
    parts = [f"{platform.processor() or 'CPU'}", f"nnU-Net {version('nnunetv2')}", f"torch {torch.__version__}"]
    if device == "cuda":
        cudnn = torch.backends.cudnn.version()
        parts = [torch.cuda.get_device_name(), *parts[1:], f"CUDA {torch.version.cuda}", f"cuDNN {cudnn}"]
    return ", ".join(parts)


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    os.environ["nnUNet_compile"] = "t" if args.compile else "f"
    torch.set_num_threads(args.threads)
    from nnunet_ssl.discovery import register

    register()
    with redirect_stdout(sys.stderr):
        result = (count_steps if args.count else measure_loaders if args.loaders else measure_steps)(args)
    result["device"] = f"{describe_machine(args.device)}, {args.threads} threads, compile {args.compile}"
    print(result["what"], "|", result["device"])
    keys = [k for k in result["rows"][0] if k != "ratio_quartiles"]
    print("| " + " | ".join(keys) + " |\n|" + "---|" * len(keys))
    for row in result["rows"]:
        print("| " + " | ".join(f"{row[k]:.3f}" if isinstance(row[k], float) else str(row[k]) for k in keys) + " |")
    for name, reason in result.get("failed", {}).items():
        print(f"{name}: {reason}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
