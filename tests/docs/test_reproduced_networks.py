"""docs/reproduce: the networks that the commands of a page make are those of the publication."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ssl.architectures.cmaformer import CMAformer, released_layout
from nnunet_ssl.architectures.token_attention import CrossAttentionGate
from nnunet_ssl.cli import build_parser, main
from nnunet_ssl.planning.plans_copy import parse_settings_of_all
from nnunet_ssl.trainers import find_trainer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import reproduce

ROOT = Path(__file__).resolve().parents[2]
PAGE = reproduce.read_page(ROOT / "docs" / "reproduce" / "cmaformer_ldc.md")
ROWS = [row for row in PAGE.rows if row.runs]
RELEASED = 47_679_718  # docs/methods/cmaformer.md


def parsed(command: str):
    words = shlex.split(command)[1:]
    return build_parser(words[0]).parse_args(words)


def network_of(row: reproduce.Row, make_dataset, **other) -> CMAformer:
    """What the trainer of a row builds from the page's plans, of the page's data in one channel and three classes."""
    own = next(parsed(c) for c in reproduce.commands_of(PAGE, row) if c.startswith("nnunet_ssl plans"))
    source = next(c for c in PAGE.preparation if c.startswith("nnunet_ssl plans") and parsed(c).d == own.d)
    base = make_dataset(preprocess=False)
    words = shlex.split(source)[1:]
    words[words.index("-d") + 1] = "901"
    assert main(words) == 0
    plans = json.loads((base / f"{own.p}.json").read_text())
    plans["nnunet_ssl"]["hyperparameters"] = parse_settings_of_all(own.training, own.hyperparameters)[1]
    trainer = row.words["TRAINER"][0]
    plans["nnunet_ssl"]["hyperparameters"].setdefault(trainer, {}).update(other)
    manager = PlansManager(plans)
    with torch.device("meta"):
        return find_trainer(trainer).build_network_architecture(manager, manager.get_configuration("2d"), 1, 3)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_cmaformer_has_the_levels_of_the_released_code(row, make_dataset):
    network = network_of(row, make_dataset)
    published = released_layout(1, 3)
    assert [stage_width(stage) for stage in network.stages] == [16, 32, 64, 128, 256, 512]
    assert network.decoder.levels == published.decoder.levels == [4, 2, 0]
    kinds = {type(module) for module in network.modules()}
    assert nn.BatchNorm2d in kinds and nn.InstanceNorm2d not in kinds


def stage_width(stage: nn.Module) -> int:
    """Channels of what a level puts out."""
    return [m for m in stage.modules() if isinstance(m, nn.Conv2d)][-1].out_channels


def test_cmaformer_is_the_released_network_but_for_gates_and_positions(make_dataset):
    (row,) = (row for row in ROWS if row.name == "t2-cmaformer")
    network = network_of(row, make_dataset)
    assert [type(step.gate) for step in network.decoder.steps].count(CrossAttentionGate) == 2
    said = f"{parameters(network):,}"
    assert said in (ROOT / "docs" / "reproduce" / "cmaformer_ldc.md").read_text(encoding="utf-8")


def test_cmaformer_with_the_released_gate_and_no_positions_is_the_released_network(make_dataset):
    (row,) = (row for row in ROWS if row.name == "t2-cmaformer")
    assert parameters(network_of(row, make_dataset, gate="scalar", position_bias=False)) == RELEASED
