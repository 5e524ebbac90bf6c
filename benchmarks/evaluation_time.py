"""Time of `nnunet_ssl evaluate` (semi-supervised training for nnU-Net v2), and of its metrics against those of medpy.

    python benchmarks/evaluation_time.py --raw nnUNet_raw/Dataset004_Hippocampus --cases 60

Predictions are made from the reference labels: every class is moved by up to two voxels along each axis and grown or
shrunk by one. medpy is under the GPL and no dependency of this package; install it beside it for the comparison
(pip install --target FOLDER --no-deps medpy, PYTHONPATH=FOLDER). Without it, our own times are printed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK
from scipy import ndimage

from nnunet_ssl.evaluation.scoring.labels import EvaluatedClass
from nnunet_ssl.evaluation.scoring.scores import score_classes

Case = tuple[np.ndarray, np.ndarray, tuple[float, ...]]  # reference, prediction, spacing
Score = Callable[[list[Case], list[EvaluatedClass]], None]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True, help="folder with dataset.json and labelsTr (only read)")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3, help="the smallest time of so many is reported")
    parser.add_argument("-np", type=int, default=8, help="as for nnunet_ssl evaluate")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def imperfect(reference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels moved, grown or shrunk class by class; one of twenty classes is lost."""
    prediction = np.zeros_like(reference)
    for label in np.unique(reference[reference > 0]):
        mask = np.roll(reference == label, rng.integers(-2, 3, reference.ndim), tuple(range(reference.ndim)))
        change = [ndimage.binary_erosion, ndimage.binary_dilation, np.asarray][rng.integers(3)]
        if rng.random() > 0.05:
            prediction[change(mask)] = label
    return prediction


def make_predictions(raw: Path, folder: Path, count: int, seed: int) -> list[Case]:
    """Write imperfect predictions, and return what was written."""
    rng, cases = np.random.default_rng(seed), []
    ending = json.loads((raw / "dataset.json").read_text())["file_ending"]
    for path in sorted((raw / "labelsTr").glob(f"*{ending}"))[:count]:
        image = SimpleITK.ReadImage(str(path))
        reference = SimpleITK.GetArrayFromImage(image)
        prediction = imperfect(reference, rng)
        written = SimpleITK.GetImageFromArray(prediction)
        written.CopyInformation(image)
        SimpleITK.WriteImage(written, str(folder / path.name))
        cases.append((reference.astype(np.int32), prediction.astype(np.int32), image.GetSpacing()[::-1]))
    return cases


def time_command(raw: Path, predictions: Path, names: list[str], processes: int) -> tuple[float, float]:
    """(seconds on the clock, seconds of the processor) of the whole command, start-up included."""
    command = [sys.executable, "-m", "nnunet_ssl.cli", "evaluate", "-ref", raw / "labelsTr", "-pred", predictions]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    options = ["-np", processes, "--cases", *names]
    subprocess.run([*map(str, command), *map(str, options)], check=True, capture_output=True)
    clock, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def best(score: Score, cases: list[Case], classes: list[EvaluatedClass], repeats: int) -> float:
    """Smallest processor time of this process in seconds, without imports."""
    score(cases[:1], classes)
    times = []
    for _ in range(repeats):
        started = time.process_time()
        score(cases, classes)
        times.append(time.process_time() - started)
    return min(times)


def ours(cases: list[Case], classes: list[EvaluatedClass]) -> None:
    for reference, prediction, spacing in cases:
        score_classes(reference, prediction, spacing, 1.0, classes)


def medpys(cases: list[Case], classes: list[EvaluatedClass]) -> None:
    metrics = importlib.import_module("medpy.metric.binary")
    for reference, prediction, spacing in cases:
        for entry in classes:
            masks = [np.isin(array, entry.values) for array in (prediction, reference)]
            if masks[0].any() and masks[1].any():  # medpy raises on empty masks
                metrics.hd95(*masks, voxelspacing=spacing)
                metrics.asd(*masks, voxelspacing=spacing)


def main() -> None:
    args = arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    labels = json.loads((args.raw / "dataset.json").read_text())["labels"]
    classes = [EvaluatedClass(name, (value,)) for name, value in labels.items() if isinstance(value, int) and value > 0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = make_predictions(args.raw, folder, args.cases, args.seed)
        ending = json.loads((args.raw / "dataset.json").read_text())["file_ending"]
        names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
        runs = [time_command(args.raw, folder, names, args.np) for _ in range(args.repeats)]
    clock, processor = min(run[0] for run in runs), min(run[1] for run in runs)
    pairs = len(cases) * len(classes)
    print(f"{len(cases)} cases x {len(classes)} classes, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"nnunet_ssl evaluate, start-up included: {clock:.1f} s on the clock, {processor:.1f} s of the processor")
    own = best(ours, cases, classes, args.repeats)
    print(f"all six metrics: {own:.2f} s of the processor, {1000 * own / pairs:.1f} ms per case and class")
    if importlib.util.find_spec("medpy") is None:
        print("medpy is not installed, so there is no ratio")
        return
    theirs = best(medpys, cases, classes, args.repeats)
    print(f"medpy {version('medpy')}, hd95 and asd: {theirs:.2f} s, {1000 * theirs / pairs:.1f} ms per case and class")
    print(f"ratio medpy / ours: {theirs / own:.2f}")


if __name__ == "__main__":
    main()
