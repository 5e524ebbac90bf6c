"""What a weight of zero switches off is not computed: with the unlabelled terms off, a step is that of the labels."""

from __future__ import annotations

import pytest

from nnunet_ssl.planning.rehearsal import rehearse
from tests.planning.small_plan import DATASET_JSON, STOCK, small_plan, trainer_class
from tests.trainers.registered import NAMES

# How many of nnU-Net's steps on the labelled patches are left, and the settings that leave them.
LEFT = {
    "nnUNetTrainerMeanTeacher": (1, {"consistency_weight": 0.0}),
    "nnUNetTrainerUAMT": (1, {"consistency_weight": 0.0}),
    "nnUNetTrainerURPC": (1, {"consistency_weight": 0.0}),
    "nnUNetTrainerFixMatch": (1, {"unsupervised_weight": 0.0}),
    "nnUNetTrainerUniMatch": (1, {"unsupervised_weight": 0.0}),
    "nnUNetTrainerADMT": (1, {"unsupervised_weight": 0.0}),
    "nnUNetTrainerCPS": (2, {"cross_weight": 0.0}),
    "nnUNetTrainerMCNet": (1, {"consistency_weight": 0.0, "decoders": 2}),
    "nnUNetTrainerDTC": (1, {"consistency_weight": 0.0}),
    "nnUNetTrainerSSNet": (1, {"smoothness_weight": 0.0, "separation_weight": 0.0}),
    "nnUNetTrainerPLGCL": (1, {"consistency_weight": 0.0, "contrast_weight": 0.0}),
    "nnUNetTrainerLDC": (1, {"unlabeled_weight": 0.0, "contrast_weight": 0.0}),
}
# Decoders and heads of their own work on the labelled patches, too.
MORE_THAN_NNUNET = {
    "nnUNetTrainerMCNet": 1.9,
    "nnUNetTrainerDTC": 1.1,
    "nnUNetTrainerURPC": 1.01,
    "nnUNetTrainerLDC": 1.1,
}
WHY = {
    "nnUNetTrainerSupervised": "has no unlabelled term",
    "nnUNetTrainerPublishedSupervised": "has no unlabelled term",
    "nnUNetTrainerDKUXNetSupervised": "has no unlabelled term",
    "nnUNetTrainerUXNet": "has no unlabelled term",
    "nnUNetTrainerCMAformerSupervised": "has no unlabelled term",
    "nnUNetTrainerDKUXNet": "tests/trainers/dkuxnet: labelled patches alone while the contrast has no weight",
    "nnUNetTrainerBCP": "labelled voxels lie in mixed patches; without its weight the teacher rests (below)",
    "nnUNetTrainerDHC": "its weights of the classes, of the supervised term too, come from unlabelled predictions",
    "nnUNetTrainerSKCDF": "without the unlabelled term its second decoder would not be trained at all",
    "nnUNetTrainerDualNetworks": "its networks are two others; all four terms are left out at once (below)",
    "nnUNetTrainerCMAformer": "its network is another; its losses are those of LDC",
}


def operations(name: str, **settings: float) -> int:
    plans = small_plan(name, pull_looks=0, **settings) if settings else small_plan(name)
    return rehearse(trainer_class(name), plans, "2d", DATASET_JSON).operations


def test_every_method_is_asked():
    methods = {name for name in NAMES if not name.endswith(("_paper", "_released"))}
    assert methods == LEFT.keys() | WHY.keys()


@pytest.mark.parametrize("name", LEFT)
def test_switched_off_is_not_computed(name):
    steps, settings = LEFT[name]
    labeled = operations(STOCK) * steps
    most = MORE_THAN_NNUNET.get(name, 1.0)
    assert labeled <= operations(name, **settings) <= labeled * most


def test_a_teacher_without_weight_rests():
    on, off = (operations("nnUNetTrainerBCP", unlabeled_weight=weight) for weight in (0.5, 0.0))
    assert on - off == pytest.approx(operations(STOCK) / 3, rel=0.02)  # a forward pass without gradient


def test_dual_networks_leave_the_unlabelled_patches_out_with_their_last_term():
    weights = ("consistency_weight", "uncertainty_weight", "pseudo_label_weight", "contrast_weight")
    on, one, off = (
        operations("nnUNetTrainerDualNetworks", **dict.fromkeys(weights, 0.0) | settings)
        for settings in (dict.fromkeys(weights, 1.0), {"contrast_weight": 1.0}, {})
    )
    assert one == pytest.approx(on, rel=0.01) and off == pytest.approx(on / 2, rel=0.01)


@pytest.mark.parametrize(
    "settings, rest",
    [({"consistency_weight": 0.0}, "contrast_weight"), ({"contrast_weight": 0.0}, "consistency_weight")],
)
def test_each_part_of_plgcl_rests_alone(settings, rest):
    both, one, none = (
        operations("nnUNetTrainerPLGCL", **off) for off in ({"neighbours": 20}, settings, {**settings, rest: 0.0})
    )
    assert none < one < 0.9 * both
