"""Run the real commands as subprocesses, the way a user does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from tests.integration.command_server import run_forked

SCRIPTS = Path(sys.executable).parent
DATASET = "Dataset004_Hippocampus"
ACDC = "Dataset027_ACDC"
TRAINING = ("num_epochs=2", "num_iterations_per_epoch=3", "num_val_iterations_per_epoch=1", "optimizer=adamw",
            "initial_lr=0.003", "save_every=1")  # fmt: skip
MEAN_TEACHER = "nnUNetTrainerMeanTeacher"
FORK_POOLS = Path(__file__).parent / "fork_pools"
PATCHES = {"3d_fullres": [24, 32, 24], "2d": [32, 32]}


@dataclass(frozen=True)
class Project:
    """The three folders of nnU-Net below one root, and the environment that points to them."""

    root: Path
    dataset: str

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.dataset

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.dataset

    def results(self, trainer: str, plans: str, configuration: str) -> Path:
        return self.root / "nnUNet_results" / self.dataset / f"{trainer}__{plans}__{configuration}"

    def environment(self, **extra: str) -> dict[str, str]:
        """Of the commands; ``PYTHONPATH=""`` gives nnU-Net's pools back as they are, see fork_pools."""
        folders = {n: str(self.root / n) for n in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
        defaults = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_extTrainer": ext_trainer()}
        if hasattr(os, "fork"):
            paths = [str(FORK_POOLS), *filter(None, [os.environ.get("PYTHONPATH")])]
            defaults |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        return clean | folders | defaults | extra

    def run(self, command: str, *arguments: object, fails: bool = False, **environment: str) -> str:
        """Output of one command, stdout and stderr together; its exit code must be 0, or not with ``fails``.

        In a fork of one process that has done the imports; with a PYTHONPATH of its own in a new one, as for a user.
        """
        words, complete = [command, *map(str, arguments)], self.environment(**environment)
        if "PYTHONPATH" in environment or not hasattr(os, "fork"):
            return run([str(SCRIPTS / command), *words[1:]], complete, self.root, fails)
        file = self.root / "output_of_command.txt"
        file.unlink(missing_ok=True)
        code = run_forked(words, complete, str(self.root), str(file))
        output = file.read_text(errors="replace")
        assert (code != 0) == fails, f"{' '.join(words)} ended with {code}:\n{output[-6000:]}"
        return output

    def run_each(self, *lines: tuple[object, ...], **environment: str) -> str:
        """Several commands one after the other, each (command, *arguments), each named before its output."""
        return "".join(
            f"$ {' '.join(map(str, line))}\n{self.run(str(line[0]), *line[1:], **environment)}" for line in lines
        )


@lru_cache(maxsize=1)
def ext_trainer() -> str:
    """One line for `export nnUNet_extTrainer=$(nnunet_ssl path)`."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    path = subprocess.run([SCRIPTS / "nnunet_ssl", "path"], capture_output=True, text=True, check=True, env=clean)
    return path.stdout.strip()


def run(line: list[str], environment: dict[str, str], folder: Path, fails: bool = False) -> str:
    done = subprocess.run(
        line, env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    assert (done.returncode != 0) == fails, f"{' '.join(line)} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


def shrink(plans_file: Path, patches: dict[str, list[int]], pool: int = 2) -> None:
    """Give a planned configuration a patch and a network that a CPU trains in milliseconds."""
    plans = load_json(str(plans_file))
    for name, patch in patches.items():
        configuration = plans["configurations"][name]
        dimensions = len(patch)
        configuration.update(patch_size=patch, batch_size=2)
        architecture = configuration["architecture"]["arch_kwargs"]
        architecture.update(
            n_stages=3,
            features_per_stage=[4, 8, 8],
            kernel_sizes=[[3] * dimensions] * 3,
            strides=[[1] * dimensions, *[[pool if size > 8 else 1 for size in patch]] * 2],
            n_conv_per_stage_decoder=[1, 1],
        )
        blocks = "n_conv_per_stage" if "n_conv_per_stage" in architecture else "n_blocks_per_stage"
        architecture[blocks] = [1, 1, 1]
    save_json(plans, str(plans_file), sort_keys=False)


def interrupt_after_first_epoch(fold: Path) -> None:
    """Leave the folder of a finished training of two epochs as if it had been interrupted after the first."""
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False)
    checkpoint["current_epoch"] = 1
    checkpoint["logging"] = {k: v[:1] for k, v in checkpoint["logging"].items()}
    torch.save(checkpoint, fold / "checkpoint_latest.pth")
    (fold / "checkpoint_final.pth").rename(fold / "kept.pth")


def subjects(cases: list[str]) -> dict[str, str]:
    """Hippocampus ids 2k-1 and 2k are the two sides of one subject."""
    return {case: f"subject_{(int(case.split('_')[1]) + 1) // 2:03d}" for case in cases}


def segmentation(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def same_predictions(first: Path, second: Path) -> bool:
    names = sorted(p.name for p in first.glob("*.nii.gz"))
    assert names and names == sorted(p.name for p in second.glob("*.nii.gz"))
    return all(np.array_equal(segmentation(first / n), segmentation(second / n)) for n in names)


def dump(content: object, path: Path) -> Path:
    path.write_text(json.dumps(content))
    return path


def inputs(project: Project, folder: Path) -> Path:
    """Two images to predict."""
    folder.mkdir()
    for image in sorted((project.raw / "imagesTr").iterdir())[:2]:
        shutil.copy(image, folder)
    return folder
