"""A network for a CPU: nnU-Net's own rules at another patch, spacing and number of stages."""

from __future__ import annotations

import copy

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import make_plans_copy
from nnunet_ssl.planning.small_network import SmallNetwork, shrink
from nnunet_ssl.trainers import TRAINERS, find_trainer
from nnunet_ssl.training.settings import parse_settings
from tests.tiny import Tiny, plans_of

HEART = Tiny(shape=(10, 256, 216), spacing=(10.0, 1.5625, 1.5625), patch_3d=(8, 64, 64), patch_2d=(256, 224))


def shrunk(tiny: Tiny, configuration: str, **changes) -> dict:
    return shrink(plans_of(tiny), SmallNetwork(configuration, **changes))["configurations"][configuration]


def network(configuration: dict) -> dict:
    return configuration["architecture"]["arch_kwargs"]


# ---- topology: the numbers below are what nnU-Net's planner gives for these patches and spacings


def test_the_stages_of_a_2d_patch():
    small = shrunk(HEART, "2d", spacing=[3.125], patch_size=[96, 96], batch_size=8, features=[8, 16, 32, 64, 64])
    assert (small["patch_size"], small["batch_size"]) == ([96, 96], 8)
    assert network(small)["features_per_stage"] == [8, 16, 32, 64, 64]
    assert network(small)["strides"] == [[1, 1], [2, 2], [2, 2], [2, 2], [2, 2]]
    assert network(small)["kernel_sizes"] == [[3, 3]] * 5
    assert (network(small)["n_stages"], len(network(small)["n_conv_per_stage"])) == (5, 5)
    assert len(network(small)["n_conv_per_stage_decoder"]) == 4


def test_thick_slices_are_pooled_later_and_fewer_stages_end_with_a_cube():
    every = network(shrunk(HEART, "3d_fullres", patch_size=[8, 64, 64]))
    assert every["strides"] == [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]]
    assert every["kernel_sizes"] == [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]]
    assert every["features_per_stage"] == [8, 16, 32, 64, 64]
    two = network(shrunk(HEART, "3d_fullres", patch_size=[9, 64, 64], features=[4, 8]))
    assert (two["strides"], two["kernel_sizes"]) == ([[1, 1, 1], [1, 2, 2]], [[1, 3, 3], [3, 3, 3]])


@pytest.mark.parametrize(("configuration", "patch"), [("3d_fullres", [8, 16, 16]), ("2d", [16, 8])])
@pytest.mark.parametrize("residual", [False, True])
def test_nnunet_builds_it(configuration, patch, residual):
    manager = PlansManager(
        shrink(plans_of(Tiny(residual=residual)), SmallNetwork(configuration, patch_size=patch))
    ).get_configuration(configuration)
    built = get_network_from_plans(
        manager.network_arch_class_name, manager.network_arch_init_kwargs, manager.network_arch_init_kwargs_req_import,
        1, 3, deep_supervision=False,
    )  # fmt: skip
    assert built(torch.zeros(1, 1, *patch)).shape == (1, 3, *patch)
    assert next(built.encoder.stages[0].parameters()).shape[0] == 8


def test_without_a_patch_that_of_the_plans_but_no_more_than_an_image():
    assert shrunk(HEART, "2d")["patch_size"] == [256, 224]
    assert shrunk(HEART, "2d", spacing=[6.25])["patch_size"] == [64, 56]  # the median image has 64 x 54 pixels


# ---- data


def test_the_same_spacing_keeps_the_preprocessed_data():
    plans = plans_of(HEART)
    before = copy.deepcopy(plans)
    result = shrink(plans, SmallNetwork("2d", patch_size=[64, 64], spacing=[1.5625, 1.5625]))
    assert plans == before
    assert [*result["configurations"]] == ["2d"]
    for key in ("data_identifier", "spacing", "median_image_size_in_voxels", "normalization_schemes"):
        assert result["configurations"]["2d"][key] == before["configurations"]["2d"][key]
    assert result["nnunet_ssl"] == {"changed": {"2d": ["patch_size", "architecture"]}}


def test_another_spacing_has_data_of_its_own():
    plans = plans_of(HEART)
    configurations = [shrunk(HEART, "2d", spacing=spacing) for spacing in ([3.125], [3.125, 3.125], [4, 3.125])]
    names = [configuration["data_identifier"] for configuration in configurations]
    assert names == ["nnUNetPlans_2d_spacing3.125x3.125"] * 2 + ["nnUNetPlans_2d_spacing4x3.125"]
    assert configurations[0]["spacing"] == [3.125, 3.125]
    assert configurations[0]["median_image_size_in_voxels"] == [128, 108]
    coarse = shrink(plans, SmallNetwork("2d", spacing=[3.125]))
    changed = ["data_identifier", "spacing", "median_image_size_in_voxels", "patch_size", "architecture"]
    assert coarse["nnunet_ssl"]["changed"] == {"2d": changed}
    again = shrink(coarse, SmallNetwork("2d", batch_size=3))  # a copy of the copy: still other than nnU-Net's plans
    assert again["configurations"]["2d"]["data_identifier"] == names[0]
    assert again["nnunet_ssl"]["changed"] == {"2d": [*changed[:-1], "batch_size", "architecture"]}


def test_trainers_and_later_copies_accept_the_block():
    plans = make_plans_copy(shrink(plans_of(HEART), SmallNetwork("2d", spacing=[3])), "other", "n2", {}, {})
    assert plans["nnunet_ssl"].keys() == {"changed", "split"}
    for name in TRAINERS:
        assert parse_settings(plans, name, find_trainer(name).Hyperparameters).split == "n2"
    plans["nnunet_ssl"]["changed"] = ["2d"]
    with pytest.raises(SemiSupervisedError, match="damaged"):
        make_plans_copy(plans, "third", None, {}, {})


def test_the_lowres_stage_leaves_the_cascade():
    assert "next_stage" not in shrunk(Tiny(), "3d_lowres", patch_size=[16, 16, 16])


# ---- what cannot be planned


@pytest.mark.parametrize(
    ("configuration", "changes", "words"),
    [
        ("3d", {}, ["no configuration 3d; they have 2d, 3d_fullres"]),
        ("3d_cascade_fullres", {}, ["a stage of a cascade"]),
        ("2d", {"features": [4] * 9, "patch_size": [16, 16]}, ["16 x 16 allows 2 to 3 stages", "--features has 9"]),
        ("2d", {"patch_size": [6, 6]}, ["6 x 6 allows no second stage"]),
        ("3d_fullres", {"patch_size": [8, 17, 16]}, ["multiples of 2 x 4 x 4", "8 x 20 x 16"]),
        ("2d", {"spacing": [0.0], "patch_size": [8], "batch_size": 0, "features": [-1, 2]},
         ["--spacing: millimetres above 0, got 0", "--patch: 2d has 2 axes, got 8", "--batch: at least 1, got 0",
          "--features: at least 1, got -1 x 2"]),
        ("2d", {"spacing": [1.0, float("nan"), 1.0]}, ["--spacing: 2d has 2 axes", "above 0, got 1 x nan x 1"]),
    ],
)  # fmt: skip
def test_all_problems_at_once(configuration, changes, words):
    with pytest.raises(SemiSupervisedError) as caught:
        shrunk(Tiny(), configuration, **changes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_networks_that_are_no_unet():
    plans = plans_of(Tiny())
    for key in ("strides", "n_conv_per_stage"):
        del plans["configurations"]["2d"]["architecture"]["arch_kwargs"][key]
    with pytest.raises(SemiSupervisedError, match="it lacks strides, n_conv_per_stage or n_blocks_per_stage"):
        shrink(plans, SmallNetwork("2d"))
