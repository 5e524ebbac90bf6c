"""Complaints of the trainers beyond those about preprocessed data: each remedy, followed, helps."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from torch import nn

from nnunet_ssl.data.splits import Fold
from nnunet_ssl.system import run_lock
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.plgcl import settings
from nnunet_ssl.trainers.plgcl.patch_grid import PatchGrid, plan_grid
from nnunet_ssl.trainers.plgcl.trainer import nnUNetTrainerPLGCL
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from nnunet_ssl.trainers.unimatch.settings import UniMatchHyperparameters
from nnunet_ssl.training.checkpoint import CHECKPOINT_VERSION, check_version, load_part
from tests.remedies.obey import commands_in, obey, raw
from tests.remedies.rows import OBEY, Here, Row, check, message_of
from tests.running import CASES, FOLD, SHORT, make_trainer, write_split

UNLABELED = "nnUNetPlans_3d_fullres__unlabeled"
OTHER_FOLD = Fold(labeled=FOLD.val, unlabeled=FOLD.unlabeled, val=FOLD.labeled)


def training(trainer: type = nnUNetTrainerSupervised, ready: bool = False, **options: Any) -> Callable[[Here], str]:
    """What a trainer complains of when it is made, its data chosen and, if asked to, its network built."""

    def make(here: Here) -> None:
        shutil.rmtree(here.base.parents[1] / "nnUNet_results" / here.base.name, ignore_errors=True)
        made = make_trainer(here.base, trainer, **options)
        made.initialize() if ready else made.do_split()
        if trainer is not nnUNetTrainerSupervised:
            made.streams.check_cases()

    return message_of(make)


def checkpoint(here: Here, trainer: type = nnUNetTrainerSupervised) -> None:
    """Written by a control on the split "n2", to the folder of the test."""
    write_split(here.base)
    made = make_trainer(here.base, trainer, split="n2")
    made.initialize()
    made.save_checkpoint(str(here.folder / "checkpoint_latest.pth"))


def resume(trainer: type) -> Callable[[Here], str]:
    def load(here: Here) -> None:
        path = here.folder / "checkpoint_latest.pth"
        made = make_trainer(here.base, trainer, split="n2")
        if path.exists():  # without one, nnU-Net begins
            made.load_checkpoint(str(path))

    return message_of(load)


def from_its_weights(here: Here) -> str:
    """nnUNetv2_train ... -pretrained_weights FILE."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    made = make_trainer(here.base, nnUNetTrainerMeanTeacher, split="n2")
    made.initialize()
    load_pretrained_weights(made.network, str(here.folder / "checkpoint_latest.pth"), verbose=False)
    return ""


def damaged_checkpoint(here: Here) -> None:
    checkpoint(here)
    path = here.folder / "checkpoint_latest.pth"
    path.write_bytes(path.read_bytes()[:1000])


def no_images(here: Here) -> None:
    shutil.move(raw(here.base, "imagesUn"), here.folder / "images")
    shutil.rmtree(here.base / UNLABELED)


def images_and_the_command(here: Here) -> None:
    """The first of the two ways that the message names."""
    message = training(nnUNetTrainerMeanTeacher, ready=True)(here)
    shutil.copytree(here.folder / "images", raw(here.base, "imagesUn"))
    (command,) = [line for line in commands_in(message) if line.startswith("nnunet_ssl preprocess")]
    obey(f"Run: {command}", here.patch)


def labels_withheld(here: Here) -> None:
    """The second of them."""
    message = training(nnUNetTrainerMeanTeacher, ready=True)(here)
    commands = [line for line in commands_in(message) if not line.startswith("nnunet_ssl preprocess")]
    assert len(commands) == 2
    obey("\n".join(commands), here.patch)


def boxes(smallest: float, largest: float) -> None:
    UniMatchHyperparameters(cutmix_smallest=smallest, cutmix_largest=largest).cutmix(torch.Generator())


def plans(here: Here, block: dict[str, Any] | None) -> None:
    path = str(here.base / "nnUNetPlans.json")
    content = {k: v for k, v in load_json(path).items() if k != "nnunet_ssl"}
    save_json(content | ({"nnunet_ssl": block} if block else {}), path)


def trained_elsewhere(here: Here) -> None:
    """By a process that lives, which is not this one."""
    made = make_trainer(here.base, nnUNetTrainerSupervised)
    parent = psutil.Process(psutil.Process().ppid())
    me = run_lock._this_process()
    other = replace(me, pid=parent.pid, started=run_lock._started(parent))
    save_json(asdict(other), str(Path(made.output_folder, run_lock.LOCK)))


def lock(here: Here) -> Path:
    (found,) = (here.base.parents[1] / "nnUNet_results").rglob(run_lock.LOCK)
    return found


def alone(here: Here) -> None:
    make_trainer(here.base, nnUNetTrainerSupervised)


def diverging(here: Here) -> None:
    """From a large first step on, weights are not numbers."""
    step = nnUNetTrainerSupervised.train_step

    def too_far(self, batch):
        result = step(self, batch)
        if self.initial_lr > 1:
            next(self.network.parameters()).data.fill_(torch.nan)
        return result

    here.patch.setattr(nnUNetTrainerSupervised, "train_step", too_far)


def an_epoch(rate: float) -> Callable[[Here], str]:
    def train(here: Here) -> None:
        made = make_trainer(here.base, nnUNetTrainerSupervised, training={**SHORT, "initial_lr": rate})
        made.initialize()
        made.on_train_start()
        made.on_epoch_start()
        made.on_train_epoch_start()
        made.on_train_epoch_end([made.train_step(next(made.dataloader_train))])

    return message_of(train)


ROWS = {
    "weights that are not numbers": Row(
        "training.configured:nnUNetTrainerConfigured.check_weights 1",
        an_epoch(3.0),
        "with a smaller step, such as nnunet_ssl plans ... --overwrite --training initial_lr=1 ",
        lambda here: None,
        diverging,
        then=an_epoch(1.0),
    ),
    "nothing unlabelled, images": Row(
        "data.pool:unlabeled_pool 3",
        training(nnUNetTrainerMeanTeacher, ready=True),
        "Put images into",
        images_and_the_command,
        no_images,
    ),
    "nothing unlabelled, a split": Row(
        "data.pool:unlabeled_pool 3",
        training(nnUNetTrainerMeanTeacher, ready=True),
        "Or withhold labels:",
        labels_withheld,
        no_images,
        then=training(nnUNetTrainerMeanTeacher, ready=True, plans_name="nnUNetPlans_l10", training=None),
    ),
    "no such fold": Row(
        "data.nnunet_folds:check_fold 1",
        training(fold=7),
        "or all cases as fold `all`",
        lambda here: None,
        then=training(fold="all"),
    ),
    "no such fold of a split": Row(
        "data.splits:load_fold 1",
        training(fold=7, split="n2"),
        "Choose one of these",
        lambda here: None,
        lambda here: write_split(here.base),
        then=training(fold=0, split="n2"),
    ),
    "a split of unknown cases": Row(
        "data.splits:load_fold 2",
        training(split="n2"),
        "make the splits again:",
        lambda here: here.said_by(("splits", "-d", "901", "--counts", "2", "--overwrite")),
        lambda here: write_split(here.base, Fold(["gone", *CASES[:1]], CASES[2:5], CASES[5:])),
    ),
    "every label and a split": Row(
        "training.configured:nnUNetTrainerConfigured.split_of_fold 1",
        training(fold="all", split="n2"),
        "Choose a numbered fold",
        lambda here: None,
        lambda here: write_split(here.base),
        then=training(fold=0, split="n2"),
    ),
    "the split has changed": Row(
        "training.configured:nnUNetTrainerConfigured.split_of_fold 2",
        resume(nnUNetTrainerSupervised),
        "Bring the former splits_ssl.json back",
        lambda here: write_split(here.base),
        lambda here: (checkpoint(here), write_split(here.base, OTHER_FOLD)),
    ),
    "labelled cases are gone": Row(
        "training.configured:nnUNetTrainerConfigured.initialize 1",
        training(ready=True),
        "Run: nnUNetv2_preprocess -d 901 -c 3d_fullres",
        OBEY,
        lambda here: shutil.rmtree(here.base / "nnUNetPlans_3d_fullres"),
    ),
    "settings that nobody knows": Row(
        "training.settings:parse_settings 1",
        training(training=None),
        "Correct it with `nnunet_ssl plans` or in the plans file",
        lambda here: plans(here, {"training": {"num_epochs": 3}}),
        lambda here: plans(here, {"training": {"epochs": 3}}),
    ),
    "the checkpoint of another trainer": Row(
        "training.checkpoint:read_extra_state 2",
        resume(nnUNetTrainerMeanTeacher),
        "Continue with the trainer that wrote it (-tr)",
        lambda here: None,
        checkpoint,
        then=resume(nnUNetTrainerSupervised),
    ),
    "the weights of another trainer": Row(
        "training.checkpoint:read_extra_state 2",
        resume(nnUNetTrainerMeanTeacher),
        "-pretrained_weights",
        lambda here: None,
        checkpoint,
        then=from_its_weights,
    ),
    "a damaged checkpoint": Row(
        "training.checkpoint:read_extra_state 1",
        resume(nnUNetTrainerSupervised),
        "Delete it and repeat the command",
        lambda here: (here.folder / "checkpoint_latest.pth").unlink(),
        damaged_checkpoint,
    ),
    "a checkpoint of the future": Row(
        "training.checkpoint:check_version 1",
        message_of(lambda here: check_version(CHECKPOINT_VERSION + 1)),
        "Update the package: pip install",
        lambda here: None,
        then=message_of(lambda here: check_version(CHECKPOINT_VERSION)),
    ),
    "a module of another version": Row(
        "training.checkpoint:load_part 1",
        message_of(lambda here: load_part(nn.Linear(2, 2), {"head": nn.Linear(3, 2).state_dict()}, "head")),
        "Continue it with the version and settings that began it",
        lambda here: None,
        then=message_of(lambda here: load_part(nn.Linear(2, 2), {"head": nn.Linear(2, 2).state_dict()}, "head")),
    ),
    "boxes in falling order": Row(
        "trainers.cutmix_settings:CutMixHyperparameters.cutmix 1",
        message_of(lambda here: boxes(0.5, 0.2)),
        "Choose shares of the patch in rising order",
        lambda here: None,
        then=message_of(lambda here: boxes(0.2, 0.5)),
    ),
    "trained elsewhere": Row(
        "system.run_lock:_refusal 1",
        message_of(alone),
        "Wait for it, or end it there",
        lambda here: lock(here).unlink(),
        trained_elsewhere,
    ),
    "patches that do not fit": Row(
        "trainers.plgcl.patch_grid:plan_grid 1",
        message_of(lambda here: plan_grid([64] * 3, [[1] * 3, [2] * 3, [2] * 3], 4, 20, [5] * 3, "bottleneck")),
        "Change the hyper-parameters patch_size",
        lambda here: None,
        then=message_of(lambda here: plan_grid([64] * 3, [[1] * 3, [2] * 3, [2] * 3], 4, 20, [16] * 3, "bottleneck")),
    ),
    "patches that are too small": Row(
        "trainers.plgcl.encoder_check:check_encoder 1",
        training(nnUNetTrainerPLGCL, ready=True),
        "Set the hyper-parameter patch_size",
        lambda here: here.patch.setattr(settings, "plan_grid", plan_grid),
        lambda here: here.patch.setattr(
            settings, "plan_grid", lambda *_: PatchGrid(2, (4, 4, 4), ((0,), (0,), (0,)))
        ),  # such a plan
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_followed_the_complaint_is_gone(make_dataset, tmp_path, monkeypatch, capsys, name):
    folder = tmp_path / "files"
    folder.mkdir()
    torch.manual_seed(0)
    check(ROWS[name], Here(make_dataset(), folder, monkeypatch, capsys))
