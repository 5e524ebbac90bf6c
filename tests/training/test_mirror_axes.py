"""The setting that keeps left and right apart."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import parse_assignments
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.trainers.skcdf.trainer import nnUNetTrainerSKCDF
from nnunet_ssl.trainers.supervised import nnUNetTrainerSupervised
from tests.running import SHORT, make_trainer

ANISOTROPIC = {"shape": (8, 22, 24), "spacing": (4.0, 1.0, 1.0), "patch_3d": (6, 20, 20)}


def mirrored(transforms) -> list[tuple[int, ...]]:
    return [t.allowed_axes for t in transforms.transforms if isinstance(t, MirrorTransform)]


@pytest.mark.parametrize(
    "configuration, setting, axes",
    [
        ("3d_fullres", None, (0, 1, 2)),
        ("3d_fullres", [1, 0], (0, 1)),
        ("3d_fullres", [2], (2,)),
        ("3d_fullres", [], None),
        ("2d", None, (0, 1)),
        ("2d", [0], (0,)),
        ("2d", [], None),
    ],
)
@pytest.mark.parametrize("trainer_class", [nnUNetTrainerMeanTeacher, nnUNetTrainerSKCDF])
def test_holds_for_both_streams_and_for_prediction(make_dataset, trainer_class, configuration, setting, axes):
    trainer = make_trainer(make_dataset(), trainer_class, configuration, training={**SHORT, "mirror_axes": setting})
    trainer.on_train_start()
    streams = trainer.dataloader_train.data_loader
    for stream in (streams.labeled, streams.unlabeled):
        assert mirrored(stream.transforms.transforms) == ([axes] if axes else [])
    assert trainer.inference_allowed_mirroring_axes == axes
    path = Path(trainer.output_folder, "checkpoint.pth")
    trainer.save_checkpoint(str(path))
    checkpoint = torch.load(path, weights_only=False)
    assert checkpoint["inference_allowed_mirroring_axes"] == axes  # what nnUNetv2_predict mirrors
    assert checkpoint["nnunet_ssl"]["settings"]["training"]["mirror_axes"] == setting


def test_holds_for_the_control_and_anisotropic_plans(make_dataset):
    dataset = make_dataset(preprocess=False, **ANISOTROPIC)
    trainer = make_trainer(dataset, nnUNetTrainerSupervised, training={**SHORT, "mirror_axes": [0, 1]})
    trainer.on_train_start()
    assert mirrored(trainer.dataloader_train.data_loader.transforms) == [(0, 1)]
    assert trainer.inference_allowed_mirroring_axes == (0, 1)


@pytest.mark.parametrize(
    "configuration, axes", [("2d", [2]), ("2d", [0, 0]), ("3d_fullres", [3]), ("3d_fullres", [-1]),
                            ("3d_fullres", [True]), ("3d_fullres", [1.0]), ("3d_fullres", ["0"])],
)  # fmt: skip
def test_axes_that_the_configuration_lacks_are_refused(make_dataset, configuration, axes):
    dataset = make_dataset(preprocess=False)
    with pytest.raises(SemiSupervisedError, match=f"mirror_axes = (.|\n)*configuration {configuration}, whose axes"):
        make_trainer(dataset, nnUNetTrainerSupervised, configuration, training={"mirror_axes": axes})


def test_as_it_is_typed(make_dataset):
    assert parse_assignments(["mirror_axes=[0,1]"]) == {"mirror_axes": [0, 1]}
    with pytest.raises(SemiSupervisedError, match="mirror_axes = 2 must be list"):
        make_trainer(make_dataset(preprocess=False), nnUNetTrainerSupervised, training={"mirror_axes": 2})
