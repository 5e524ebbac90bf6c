"""The pages of docs/reproduce as they stand, from raw files of the official layouts to a table, with --small.

Of each page one data set is imitated, with every case that its protocol names. All of its rows get their plans and
their trainer, which knows the published cases; one row is trained, predicts, and is scored.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from protocol_file import anonymous_size, read_protocol
from skimage import io

from nnunet_ssl.cli import main
from nnunet_ssl.trainers import find_trainer
from tests.benchmarks.conftest import PROTOCOLS
from tests.integration.commands import Project

sys.path.insert(0, str(PROTOCOLS.parent))
import reproduce

ROOT = PROTOCOLS.parents[1]
pytestmark = pytest.mark.slow
SIZE = 20


def scan(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A volume of noise and blocks of brighter voxels, one block per class."""
    random = np.random.default_rng(seed)
    label = np.zeros((SIZE, SIZE, SIZE), np.uint8)
    for value in range(1, classes + 1):
        z, y, x = (2 + 5 * (value // 4**axis % 4) for axis in range(3))
        label[z : z + 5, y : y + 5, x : x + 5] = value
    return (random.normal(0, 10, label.shape) + 40 * (label > 0)).astype(np.int16), label


def write(array: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def left_atrium(folder: Path) -> None:
    protocol = read_protocol(str(PROTOCOLS / "la.yaml"))
    for seed, name in enumerate(sorted({unit for units in protocol["lists"].values() for unit in units})):
        image, label = scan(seed, 1)
        write(image, folder / "2018LA_Seg_Training Set" / name / "lgemri.nrrd")
        write(label * 255, folder / "2018LA_Seg_Training Set" / name / "laendo.nrrd")


def synapse(folder: Path) -> None:
    for number in [*range(1, 11), *range(21, 41)]:
        image, label = scan(number, 13)
        write(image, folder / "RawData" / "Training" / "img" / f"img{number:04d}.nii.gz")
        write(label, folder / "RawData" / "Training" / "label" / f"label{number:04d}.nii.gz")


def crag(folder: Path) -> None:
    count = anonymous_size(read_protocol(str(PROTOCOLS / "crag.yaml")))
    random = np.random.default_rng(0)
    for number in range(count):
        image = random.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
        label = np.zeros((SIZE, SIZE), np.uint8)
        label[4:14, 6:18] = 1 + number % 3
        image[label > 0] += 100
        for name, array in (("Images", image), ("Annotation", label)):
            path = folder / "CRAG" / "train" / name / f"train_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            io.imsave(path, array, check_contrast=False)


# page -> who writes the raw data, numbers of its data set, name of its commands, the row that is trained
CASES: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str, str]] = {
    "skcdf": (synapse, ("203", "213"), "synapse", "t3-df-absh"),
    "dkuxnet": (left_atrium, ("201", "211"), "la", "t1-vnet-80"),
    "dual_networks": (left_atrium, ("201", "221"), "la", "t3-la-une"),
    "plgcl": (crag, ("207",), "crag", "t2-crag-warmup"),
    "cmaformer_ldc": (synapse, ("206",), "synapse", "t1-cmaformer"),
}


class Desk:
    """A folder with the raw data, nnU-Net's folders and $OUT, where commands run as they stand on a page."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.root = Project(root, "-"), root
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "out"):
            (root / name).mkdir()
            monkeypatch.setenv("OUT" if name == "out" else name, str(root / name))
        monkeypatch.chdir(root)

    def run(self, command: str) -> None:
        """One command: a script and `nnunet_ssl plans` in this process, the others in forks."""
        program, *words = (os.path.expandvars(word) for word in shlex.split(command))
        if program == "python":
            script = importlib.import_module(Path(words[0]).stem)
            words = [re.sub(r"^benchmarks/", f"{ROOT}/benchmarks/", word) for word in words[1:]]
            one = ["-np", "1"] if re.search(r"as_published.py make|prepare_(la|synapse)", command) else []
            assert script.main([*words, *one]) == 0, command
        elif command.startswith("nnunet_ssl plans"):
            assert main(words) == 0, command
        else:
            more = ["-npfp", "1", "-np", "1"] if program == "nnUNetv2_plan_and_preprocess" else []
            self.project.run(program, *words, *more)


@pytest.mark.parametrize("slug", CASES)
def test_a_page_from_raw_files_to_the_table(slug, tmp_path, monkeypatch, capsys):
    make_raw, numbers, block, trained = CASES[slug]
    make_raw(tmp_path)
    desk = Desk(tmp_path, monkeypatch)
    page = reproduce.read_page(ROOT / "docs" / "reproduce" / f"{slug}.md")
    ours = [c for c in page.preparation if set(re.findall(r"-[do] (\d+)", c)) & set(numbers)]
    for command in ours:
        desk.run(reproduce.smaller(command))

    # of several folds or seeds the first: the others are the same commands
    rows = [replace(r, words={k: v[:1] for k, v in r.words.items()}) for r in page.rows if r.block == block]
    protocol_command = shlex.split(next(c for c in ours if "apply.py" in c))
    for row in rows:
        commands = reproduce.commands_of(page, row)
        for command in (c for c in commands if c.startswith("nnunet_ssl plans")):
            desk.run(reproduce.smaller(command))
        for command in (c for c in commands if c.startswith("nnUNetv2_train")):
            check_trainer(command, protocol_command, row)

    (row,) = (r for r in rows if r.name == trained)
    for command in reproduce.commands_of(page, row):
        if not command.startswith("nnunet_ssl plans"):
            desk.run(reproduce.smaller(command))
    capsys.readouterr()
    assert reproduce.main([str(ROOT / "docs" / "reproduce" / f"{slug}.md"), "--table"]) == 0
    (line,) = capsys.readouterr().out.splitlines()[2:]
    assert line.startswith(f"| `{trained}` | {row.paper} | {row.published} | 1 | 0.")


def check_trainer(command: str, protocol_command: list[str], row: reproduce.Row) -> None:
    """The trainer of a row can be built from its plans, for two steps, and has the protocol's cases."""
    words = shlex.split(command)
    number, configuration, fold, plans_name, name = words[1], words[2], int(words[3]), words[5], words[7]
    (base,) = Path(os.environ["nnUNet_preprocessed"]).glob(f"Dataset{int(number):03d}_*")
    plans = json.loads((base / f"{plans_name}.json").read_text())
    trainer = find_trainer(name)(plans, configuration, fold, json.loads((base / "dataset.json").read_text()),
                                 torch.device("cpu"))  # fmt: skip
    assert trainer.num_epochs * trainer.settings.training.num_iterations_per_epoch == 2
    labeled, validation = trainer.do_split()
    protocol = read_protocol(str(ROOT / protocol_command[2]))
    chosen = protocol_command[protocol_command.index("--split") + 1] if "--split" in protocol_command else None
    split = protocol["splits"][chosen or next(iter(protocol["splits"]))]
    rule = split["labeled"][row.words["SPLIT"][0].split()[1]] if row.words["SPLIT"][0] else None
    assert len(labeled) == (rule["count"] if rule else split["counts"]["train"][fold])
    assert len(validation) == split["counts"]["val"][fold]
    if "draw" not in split:  # else the file has numbers and a seed
        unit, lists = re.compile(protocol["case_names"]["pattern"]), protocol["lists"]
        training, held = ([u for part in split["folds"][fold][key] for u in lists[part]] for key in ("train", "val"))
        wanted = training if rule is None else lists[rule["list"]] if "list" in rule else training[: rule["count"]]
        for found, expected in ((labeled, wanted), (validation, held)):
            assert sorted(unit.fullmatch(case)[1] for case in found) == sorted(expected)  # type: ignore[index]
