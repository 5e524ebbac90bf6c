"""`nnunet_ssl plans --network`: networks of publications, in plans that nnU-Net builds and that are written again."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_ssl.cli import main
from nnunet_ssl.data.published_networks import NETWORKS, architecture, recognised
from nnunet_ssl.data.rewriting import rewriting_command
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.settings import RECIPES

DECODER = 8_283_292 - 2 * (32 * 14 + 14)  # of SKCDF's release, without its two heads of 14 classes
SIZES = {"vnet16": 9_448_866, "vnet32": 29_495_296 + DECODER + 32 * 2 + 2}


def build(block: dict, classes: int = 2) -> nn.Module:
    names = (block[key] for key in ("network_class_name", "arch_kwargs", "_kw_requires_import"))
    with torch.device("meta"):
        return get_network_from_plans(*names, 1, classes, deep_supervision=False)


@pytest.mark.parametrize("name", NETWORKS)
def test_nnunet_builds_them_in_2d_and_3d(name):
    for dimensions, convolution in ((2, nn.Conv2d), (3, nn.Conv3d)):
        block = architecture(name, dimensions, 0.5)
        network = build(block)
        assert any(isinstance(m, convolution) for m in network.modules())
        assert not any(isinstance(m, (nn.InstanceNorm2d, nn.InstanceNorm3d)) for m in network.modules())
        assert recognised(json.loads(json.dumps(block))) == (name, 0.5, None)
    if name in SIZES:
        assert sum(p.numel() for p in network.parameters()) == SIZES[name]
    other = architecture(name, 3, None)
    other["arch_kwargs"]["features_per_stage"][0] += 1
    assert recognised(other) == (name, None, other["arch_kwargs"]["features_per_stage"])
    other["arch_kwargs"]["conv_bias"] = False
    assert recognised(other) is None


@pytest.mark.parametrize("features", [None, [2, 4, 4, 4, 8]])
def test_plans_that_carry_one_are_written_again_alike(make_dataset, capsys, features):
    base = make_dataset(preprocess=False)
    words = "plans -d 901 -c 3d_fullres --network vnet16 --dropout 0.5 --patch 16 16 32 --batch 3 --name v"
    own = [] if features is None else ["--features", *map(str, features)]
    assert main([*words.split(), *own, "--prediction", "stride=[4,4,8]"]) == 0
    plans, source = (json.loads((base / f"{name}.json").read_text()) for name in ("v", "nnUNetPlans"))
    chosen = plans["configurations"]["3d_fullres"]
    assert (chosen["patch_size"], chosen["batch_size"]) == ([16, 16, 32], 3)
    assert chosen["architecture"] == architecture("vnet16", 3, 0.5, features)
    assert chosen["data_identifier"] == source["configurations"]["3d_fullres"]["data_identifier"]
    assert plans["nnunet_ssl"]["prediction"] == {"stride": [4, 4, 8]}
    before = (base / "v.json").read_bytes()
    assert main([*shlex.split(rewriting_command(901, plans, "nnUNetPlans", source))[1:]]) == 0
    assert (base / "v.json").read_bytes() == before
    assert "prediction: stride = [4, 4, 8]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--network vnet16 --patch 16 16 20", "the patch needs multiples of 16, got 16 x 16 x 20"),
        ("--network vnet16 --features 4 8", "--features: --network vnet16 has 5 stages, got 4 x 8"),
        ("--patch 16 16 16 --dropout 0.5", "--dropout: with --network"),
        ("--network unet16 --dropout 1.5", "above 0 and below 1, got 1.5"),
    ],
)
def test_what_cannot_be(make_dataset, capsys, words, message):
    base = make_dataset(preprocess=False)
    assert main(["plans", "-d", "901", "-c", "3d_fullres", "--name", "v", *words.split()]) == 1
    assert message in capsys.readouterr().err and not (base / "v.json").exists()


def test_settings_given_in_two_places_add_up(make_dataset):
    base = make_dataset(preprocess=False)
    words = "plans -d 901 --name v --training num_epochs=3 --training recipe=uamt initial_lr=0.5"
    assert main(words.split()) == 0
    training = json.loads((base / "v.json").read_text())["nnunet_ssl"]["training"]
    assert training == {"num_epochs": 3, "recipe": "uamt", "initial_lr": 0.5}


def test_every_recipe_can_be_named():
    assert set(RECIPES) == set(PUBLISHED)
