"""DKUXNet on real data through the real commands, with plans that name the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json

from tests.integration.commands import (
    TRAINING,
    Project,
    inputs,
    interrupt_after_first_epoch,
    segmentation,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
DKUX = "nnUNetTrainerDKUXNet"
PLANS = "nnUNetPlans_dkux"
LABELED = ["loss_assignment", "loss_query_distribution", "loss_supervised"]
CONTRAST = ["loss_query_contrast", "loss_segmentation_contrast"]
NETWORK = {"queries": 8, "query_width": 16, "attention_heads": 2, "pixel_widths": [8, 4], "layers_per_level": 1}


def name_network(project: Project, plans: str) -> None:
    file = project.preprocessed / f"{plans}.json"
    content = load_json(str(file))
    for configuration in content["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"]["network_class_name"] = "nnunet_ssl.architectures.dkuxnet.DKUXNet"
            configuration["architecture"]["arch_kwargs"].update(NETWORK)
    save_json(content, str(file), sort_keys=False)


def options(configuration: str, trainer: str, plans: str = PLANS, dataset: int = 4) -> tuple[object, ...]:
    return (dataset, configuration, 0, "-tr", trainer, "-p", plans, "-device", "cpu")


def prediction(
    configuration: str, trainer: str, source: Path, out: Path, plans: str = PLANS, dataset: int = 4
) -> tuple[object, ...]:
    return ("nnUNetv2_predict", "-d", dataset, "-c", configuration, "-f", 0, "-tr", trainer, "-p", plans, "-i", source,
            "-o", out, "-device", "cpu", "-npp", 0, "-nps", 0)  # fmt: skip


def check_training(fold: Path, epochs: int, validated: int) -> pd.DataFrame:
    table = pd.read_csv(fold / "semi_supervised.csv")
    assert len(table) == epochs and table[[*LABELED, *CONTRAST]].gt(0).all(axis=None)
    assert table["count_used_queries_of_layers"].between(1, NETWORK["queries"]).all()
    assert table.filter(regex="^similarity").abs().le(1 + 1e-5).all(axis=None)
    assert len(list((fold / "validation").glob("*.nii.gz"))) == validated
    state = torch.load(fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert state["centres"].shape == (NETWORK["query_width"], NETWORK["queries"])
    return table


def check_prediction(source: Path, out: Path, classes: int = 2) -> None:
    names = sorted(p.name.replace("_0000", "") for p in source.iterdir())
    assert names and names == sorted(p.name for p in out.glob("*.nii.gz"))
    for name in names:
        image = segmentation(source / name.replace(".nii.gz", "_0000.nii.gz"))
        label = segmentation(out / name)
        assert label.shape == image.shape and label.max() <= classes


def test_trains_continues_validates_and_predicts(hippocampus: Callable[[Path], Project], tmp_path: Path):
    """3D with a resume, and 2D; plans without mirroring, which would average several predictions."""
    project = hippocampus(tmp_path / "project")
    name_network(project, "nnUNetPlans")
    given, flat = options("3d_fullres", DKUX), f"{DKUX}_1epochs"
    source = inputs(project, tmp_path / "in")
    log = project.run_each(
        (
            "nnunet_ssl",
            "plans",
            "-d",
            4,
            "--split",
            "n6",
            "--name",
            PLANS,
            "--training",
            *TRAINING,
            "mirror_axes=[]",
            "--hyperparameters",
            f"{DKUX}:guard=false",
            f"{DKUX}:pull_looks=1",
        ),
        ("nnUNetv2_train", *given),
        ("nnUNetv2_train", *options("2d", flat)),
        prediction("2d", flat, source, tmp_path / "out_2d"),
    )
    assert "7 labelled" in log and "Queries per group: [4, 1, 3]" in log  # 6, and the other side of the last subject
    fold = project.results(DKUX, PLANS, "3d_fullres") / "fold_0"
    number = len(load_json(str(fold / "validation" / "summary.json"))["metric_per_case"])
    first = check_training(fold, 2, number)
    check_training(project.results(flat, PLANS, "2d") / "fold_0", 1, number)
    check_prediction(source, tmp_path / "out_2d")

    interrupt_after_first_epoch(fold)
    log = project.run_each(
        ("nnUNetv2_train", *given, "--c"),
        prediction("3d_fullres", DKUX, source, tmp_path / "out"),
    )
    continued = log.split("$ nnUNetv2_")[1]
    assert "Epoch 1" in continued and "Epoch 0" not in continued and "before the resume" not in continued
    table = check_training(fold, 2, number)
    assert table.iloc[0].equals(first.iloc[0])
    assert table["weight_query_contrast"].iloc[1] == pytest.approx(first["weight_query_contrast"].iloc[1])
    check_prediction(source, tmp_path / "out")


def test_anisotropic_data(acdc: Callable[[Path], Project], tmp_path: Path):
    project = acdc(tmp_path / "project")
    planned = project.preprocessed / "nnUNetPlans.json"
    content = load_json(str(planned))
    kernels = content["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["kernel_sizes"]
    kernels[0] = [1, 3, 3]  # as planned, before the fixture shrank it
    save_json(content, str(planned), sort_keys=False)
    name_network(project, "nnUNetPlans")
    trainer, source = f"{DKUX}_1epochs", inputs(project, tmp_path / "in")
    log = project.run_each(
        ("nnunet_ssl", "plans", "-d", 27, "--split", "n2", "--training", *TRAINING, "mirror_axes=[]"),
        ("nnUNetv2_train", *options("3d_fullres", trainer, "nnUNetPlans_n2", 27)),
        prediction("3d_fullres", trainer, source, tmp_path / "out", "nnUNetPlans_n2", 27),
    )
    check_prediction(source, tmp_path / "out", 3)
    assert "4 withheld and 2 validation" in log
    results = project.results(trainer, "nnUNetPlans_n2", "3d_fullres") / "fold_0"
    check_training(results, 1, 2)
    state = torch.load(results / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert state["encoder.trunk.stages.0.0.depthwise.weight"].shape[2:] == (7, 7, 7)
    assert state["encoder.skips.0.conv1.conv.weight"].shape[2:] == (1, 3, 3)
    assert state["predictor.embed_pixels.0.0.weight"].shape[2:] == (1, 5, 5)
