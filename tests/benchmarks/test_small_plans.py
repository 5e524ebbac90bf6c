"""benchmarks/small_plans.py: the first stages of a plan, for a CPU."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import small_plans


@pytest.mark.parametrize(("configuration", "patch"), [("3d_fullres", [8, 16, 8]), ("2d", [16, 8])])
def test_nnunet_builds_the_first_stages(make_dataset, monkeypatch, capsys, configuration, patch):
    dataset = make_dataset(preprocess=False)
    monkeypatch.setattr(small_plans, "nnUNet_preprocessed", str(dataset.parent))
    monkeypatch.setattr(small_plans, "maybe_convert_to_dataset_name", lambda name: dataset.name)
    words = [
        "-d",
        dataset.name,
        "-c",
        configuration,
        "--patch",
        *map(str, patch),
        "--features",
        "3",
        "5",
        "--batch",
        "4",
    ]
    monkeypatch.setattr(sys, "argv", ["small_plans.py", *words])
    before = json.loads((dataset / "nnUNetPlans.json").read_text())
    small_plans.main()
    target = dataset / "nnUNetPlans_small.json"
    assert str(target) in capsys.readouterr().out

    written = json.loads(target.read_text())
    assert written["plans_name"] == "nnUNetPlans_small" and list(written["configurations"]) == [configuration]
    assert json.loads((dataset / "nnUNetPlans.json").read_text()) == before
    manager = PlansManager(written).get_configuration(configuration)
    assert manager.data_identifier == before["configurations"][configuration]["data_identifier"]
    assert (manager.patch_size, manager.batch_size) == (patch, 4)
    network = get_network_from_plans(
        manager.network_arch_class_name, manager.network_arch_init_kwargs, manager.network_arch_init_kwargs_req_import,
        1, 3, deep_supervision=False,
    )  # fmt: skip
    stages = network.encoder.stages
    assert [next(stage.parameters()).shape[0] for stage in stages] == [3, 5]
    assert network(torch.zeros(1, 1, *patch)).shape == (1, 3, *patch)


@pytest.mark.parametrize(
    ("patch", "features", "message"),
    [([8, 8, 8], [4] * 9, "fewer than --features names"), ([8, 9, 8], [4, 4], "axis 1 has 9 voxels.*a multiple of 2")],
)
def test_what_cannot_be_built_is_said(make_dataset, patch, features, message):
    plans = json.loads((make_dataset(preprocess=False) / "nnUNetPlans.json").read_text())
    with pytest.raises(SystemExit, match=message):
        small_plans.shrunk(copy.deepcopy(plans), "3d_fullres", patch, 2, features, "small")
