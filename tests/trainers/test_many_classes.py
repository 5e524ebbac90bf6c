"""Classes of very different size, through the trainers whose classes have weights of their own."""

from __future__ import annotations

import math

import pytest

from tests.trainers.registered import make_registered
from tests.trainers.stepping import reported, steps

pytestmark = pytest.mark.usefixtures("no_figures")
SIZES = (1, 3, 7, 19, 52, 139, 373, 1000)  # voxels per case of 7,920
LABELS = {"background": 0, **{f"class {k}": k for k in range(1, 9)}}
TRAINING = {"num_epochs": 1, "num_iterations_per_epoch": 10, "seed": 1, "optimizer": "adamw", "initial_lr": 0.003}
RULES = [
    ("nnUNetTrainerCPS", {"balance": rule}) for rule in ("none", "crest", "simis", "cld")
] + [("nnUNetTrainerDHC", {})]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), RULES, ids=["none", "crest", "simis", "cld", "dhc"])
def test_eight_classes_of_one_to_a_thousand_voxels(ready_dataset, name, options):
    """Ten steps, past the eight over which CLD collects: every loss and weight is finite, and weights are logged."""
    dataset = ready_dataset(labels=LABELS, sizes=SIZES)
    options = {"rampup_fraction": 1e-6, "guard": False, **options}
    trainer = make_registered(dataset, name, "3d_fullres", split="n2", training=TRAINING, hyperparameters=options)
    weighted = name.endswith("DHC") or options["balance"] != "none"
    logged: dict[str, float] = {}
    for seen in steps(trainer, 10):
        assert {"loss_cross_first", "loss_cross_second"} < seen.keys()
        assert all(math.isfinite(value) for value in seen.values()), seen
        logged |= reported(trainer, ("class_weight_",))
    names = {f"class_weight_{network}_{k}" for network in ("first", "second") for k in range(9)}
    assert logged.keys() == (names if weighted else set())
    assert all(0 <= value < 1000 for value in logged.values()), logged
    if name.endswith("DHC") or options["balance"] in ("crest", "simis"):  # by frequency: the rarest counts for more
        assert logged["class_weight_second_1"] > logged["class_weight_second_0"]
    for network in (trainer.network, trainer.auxiliary["second"]):
        assert all(p.isfinite().all() and p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
