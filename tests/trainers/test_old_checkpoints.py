"""Checkpoints of earlier versions of this package load, continue and predict as they did, for every trainer.

Those in ``refused`` are of trainers that have changed since: they predict, and to continue them is refused.

``python -m pytest -n 0 tests/trainers/test_old_checkpoints.py --record`` writes the checkpoints of trainers that have
none, and of the others the losses of the step that follows, where a method is meant to go on otherwise. Their
checkpoints stay: to drop what an earlier version wrote is to break its users' training runs.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.external import nnunet_ssl_trainers
from tests.trainers.inside import let_pytorch_draw_dropout
from tests.trainers.registered import NAMES, make_registered, unguarded
from tests.trainers.stepping import processor, steps, tolerance
from tests.trainers.test_golden import TRAINING

FOLDER = Path(__file__).with_name("old_checkpoints")
SMALLER = {"queries": 4, "group_sizes": [2, 1, 1], "layers_per_level": 1, "kmax_levels": [1]}
"""For DKUXNet, so that the files stay small."""
REFUSED = {"nnUNetTrainerPLGCL": "head", "nnUNetTrainerPLGCL_paper": "head"}
"""Trainers of which an earlier version's training cannot be continued, and the module that has other weights now."""
OF_THEN: dict[str, dict[str, Any]] = {
    "nnUNetTrainerSKCDF_paper": {"pseudo_label_dropout": False},
    "nnUNetTrainerDKUXNet": {"contrast": "sample", "contrast_channels": "foreground"},
    "nnUNetTrainerLDC": {"multiplier_limit": 0.5, "unlabeled_weight": 1.0},
    "nnUNetTrainerCMAformer": {"multiplier_limit": 0.5, "unlabeled_weight": 1.0},
}
"""Former defaults with which these were trained: where they are named, a training goes on as it began."""


def logits(name: str, checkpoint: dict[str, Any]) -> torch.Tensor:
    """Of one patch, with the network that nnU-Net builds for prediction from the checkpoint alone."""
    init = checkpoint["init_args"]
    plans = PlansManager(init["plans"])
    network = getattr(nnunet_ssl_trainers, name).build_network_architecture(
        plans, plans.get_configuration(init["configuration"]), 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(checkpoint["network_weights"], strict=True)
    patch = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network.eval()(patch)


def make(dataset: Path, name: str, seed: int) -> Any:
    smaller = SMALLER if name.startswith("nnUNetTrainerDKUXNet") else {}
    settings = smaller | unguarded(name) | OF_THEN.get(name, {})
    return make_registered(dataset, name, "2d", split="n2", training=TRAINING, hyperparameters=settings, seed=seed)


def read(stored: Path, file: Path) -> dict[str, Any]:
    """What :func:`write` stored; its checkpoint goes to a file of its own."""
    with lzma.open(stored) as compressed:
        content: dict[str, Any] = torch.load(compressed, weights_only=False)
    torch.save(content["checkpoint"], file)
    return content


def predicts_as_before(name: str, content: dict[str, Any]) -> None:
    found, near = logits(name, content["checkpoint"]), tolerance(content["cpu"])
    torch.testing.assert_close(found, content["logits"], rtol=near["rel"], atol=1e-5)


def continued(dataset: Path, name: str, file: Path) -> dict[str, float]:
    trainer = make(dataset, name, seed=9)
    trainer.load_checkpoint(str(file))
    assert trainer.current_epoch == 2
    return next(steps(trainer, 1))


def write(dataset: Path, name: str, file: Path) -> None:
    """One compressed file: the checkpoint after four steps, the fifth, and the logits of a patch."""
    trainer = make(dataset, name, seed=0)
    list(steps(trainer, 4))
    trainer.save_checkpoint(str(file))
    checkpoint = torch.load(file, weights_only=False)
    content = {
        "checkpoint": checkpoint,
        "next": continued(dataset, name, file),
        "logits": logits(name, checkpoint),
        "cpu": processor(),
    }
    store(content, name)


def store(content: dict[str, Any], name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    with lzma.open(FOLDER / f"{name}.pth.xz", "wb") as compressed:
        torch.save(content, compressed)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_an_earlier_version(ready_dataset, tmp_path, monkeypatch, record, name):
    let_pytorch_draw_dropout(monkeypatch)  # as the earlier versions did
    dataset, stored = ready_dataset(features=(2, 4, 4)), FOLDER / f"{name}.pth.xz"
    if record and not stored.exists():
        write(dataset, name, tmp_path / "new.pth")
    content = read(stored, tmp_path / "old.pth")
    predicts_as_before(name, content)
    after = continued(dataset, name, tmp_path / "old.pth")
    if record and after != pytest.approx(content["next"]):
        store(content | {"next": after}, name)
        return
    near = tolerance(content["cpu"])
    assert {k: after.get(k) for k in content["next"]} == pytest.approx(content["next"], **near)


@pytest.mark.parametrize("name, part", REFUSED.items())
def test_a_checkpoint_that_cannot_be_continued_says_so_and_predicts(ready_dataset, tmp_path, name, part):
    content = read(FOLDER / "refused" / f"{name}.pth.xz", tmp_path / "old.pth")
    predicts_as_before(name, content)
    refusal = rf"cannot be continued: the checkpoint's {part} is not that of this version.*\n.*still predicts"
    with pytest.raises(SemiSupervisedError, match=refusal):
        continued(ready_dataset(features=(2, 4, 4)), name, tmp_path / "old.pth")
