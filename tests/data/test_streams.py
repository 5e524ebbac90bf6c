from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetNumpy

from nnunet_ssl.data.streams import UNKNOWN_LABEL, UnlabeledDataset, UnlabeledLoader, open_image, single_process_loading
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from tests.running import make_trainer, seed_everything


def folder_of(dataset: Path) -> str:
    return str(dataset / "nnUNetPlans_3d_fullres__unlabeled")


def test_dataset_gives_the_image_and_no_label(make_dataset):
    folder = folder_of(make_dataset())
    image, segmentation, previous, properties = UnlabeledDataset({"extra_000": folder}).load_case("extra_000")
    assert image.shape == (1, 20, 22, 18) and segmentation.shape == (1, 20, 22, 18)
    assert not np.any(segmentation) and segmentation.base is not None and segmentation.base.size == 1  # no memory
    assert previous is None and properties == {"class_locations": None}


def test_monitoring_channel(make_dataset):
    dataset = make_dataset()
    labeled = str(dataset / "nnUNetPlans_3d_fullres")
    sources = {"extra_000": folder_of(dataset), "tiny_000": labeled}
    monitored = UnlabeledDataset(sources, frozenset({"tiny_000"}), with_monitor=True)
    unknown = monitored.load_case("extra_000")[1]
    known = monitored.load_case("tiny_000")[1]
    assert set(np.unique(unknown[0])) == {UNKNOWN_LABEL} and not unknown[1].any()
    assert {1, 2} <= set(np.unique(known[0])) and not known[1].any()


@pytest.mark.parametrize("packed", [True, False])
def test_numpy_format_is_read(tmp_path, packed):
    image = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    nnUNetDatasetNumpy.save_case(image, np.zeros_like(image), {}, str(tmp_path / "a"))
    if not packed:
        np.save(tmp_path / "a.npy", image)
    np.testing.assert_array_equal(open_image(str(tmp_path), "a"), image)


def test_padding_is_marked_invalid_and_everything_else_valid(make_dataset):
    """A patch larger than the image: exactly the image's voxels are valid."""
    dataset = make_dataset(patch_3d=(24, 24, 24))
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    loader = trainer.dataloader_train.data_loader.unlabeled
    plain = UnlabeledLoader(loader._data, 2, _Like(loader), None)
    batch = next(plain)
    assert set(np.unique(batch["target"])) == {-1, 0}
    valid = batch["target"] >= 0
    assert valid.sum(dim=(1, 2, 3, 4)).tolist() == [20 * 22 * 18] * 2
    assert not batch["data"][~valid].any()
    weak = next(trainer.dataloader_train)["unlabeled"]
    outside = ~weak["valid"]
    assert outside.any() and weak["data"][outside].abs().mean() < weak["data"][~outside].abs().mean() / 10


class _Like:
    """The sizes of a loader without its room for rotation."""

    def __init__(self, loader):
        self.patch_size_was_2d = loader.patch_size_was_2d
        self.patch_size = self.final_patch_size = loader.final_patch_size


def test_two_streams_share_the_workers(make_dataset, monkeypatch):
    dataset = make_dataset()
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    trainer = make_trainer(dataset, nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    try:
        assert trainer.dataloader_train.num_processes == 2
        assert trainer.dataloader_val.num_processes == 1
        batch = next(trainer.dataloader_train)
        assert set(batch) == {"data", "target", "keys", "extra", "unlabeled"}
        assert batch["unlabeled"]["data"].shape == (2, 1, 16, 16, 16)
    finally:
        trainer.dataloader_train._finish()
        trainer.dataloader_val._finish()


def test_loader_is_picklable_and_small(make_dataset):
    """Spawned workers receive the loader by pickle; it must not carry the images."""
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    data = pickle.dumps(trainer.dataloader_train.data_loader.unlabeled)
    seed_everything(0)
    again = next(pickle.loads(data))
    assert again["data"].shape == (2, 1, 16, 16, 16)
    assert len(data) < 200_000


def test_environment_is_restored(monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "7")
    with single_process_loading():
        assert os.environ["nnUNet_n_proc_DA"] == "0"
    assert os.environ["nnUNet_n_proc_DA"] == "7"
    monkeypatch.delenv("nnUNet_n_proc_DA")
    with pytest.raises(KeyError), single_process_loading():
        raise KeyError
    assert "nnUNet_n_proc_DA" not in os.environ


def test_views_share_geometry(make_dataset):
    """With photometric changes switched off, both views are the same array."""
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    trainer.streams.strong_view.transforms.transforms = []
    _, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert torch.equal(unlabeled.weak, unlabeled.strong)


class WithLabeledViews(nnUNetTrainerMeanTeacher):
    views = ("labeled.weak", "labeled.strong", "unlabeled.weak")


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_labelled_patches_in_two_views_with_their_padding(make_dataset, configuration):
    """A patch larger than the image: exactly the image's voxels are valid, although the label is -1 elsewhere too."""
    recipe = {"channels": 2, "patch_3d": (24, 24, 24), "patch_2d": (32, 32), "mask_normalization": True}
    dataset = make_dataset(**recipe)
    trainer = make_trainer(dataset, WithLabeledViews, configuration)
    trainer.on_train_start()
    loader = trainer.dataloader_train.data_loader.labeled
    augmentation = loader.transforms.transforms
    kinds = [type(t).__name__ for t in augmentation.transforms]
    assert "SpatialTransform" in kinds and "RandomTransform" not in kinds
    assert kinds.index("MaskImageTransform") < kinds.index("NamePadding") < kinds.index("RemoveLabelTransform")
    augmentation.transforms = [t for t in augmentation.transforms if "Spatial" not in type(t).__name__]
    loader.patch_size = loader.final_patch_size
    loader.need_to_pad = loader.need_to_pad * 0
    case = loader._data.load_case("tiny_000")[1]
    case.segmentation = np.where(
        np.arange(case.shape[-1]) < 2, -1, np.asarray(case.segmentation[:])
    )  # outside the body
    loader._data.load_case = lambda _, load=loader._data.load_case: (
        load("tiny_000")[0], case, None, {"class_locations": {1: [[0, 10, 10, 9]], 2: []}}
    )  # fmt: skip
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    size = {"3d_fullres": 20 * 22 * 18, "2d": 22 * 18}[configuration]
    assert labeled.weak.shape[1] == 2 and labeled.valid.dtype == torch.bool
    assert labeled.valid.flatten(1).sum(1).tolist() == [size] * 2
    assert not labeled.weak[:, :1][~labeled.valid].any() and labeled.target[0].min() >= 0
    assert labeled.target[0].shape == labeled.valid.shape
    assert labeled.strong.shape == labeled.weak.shape and not torch.equal(labeled.strong, labeled.weak)
    trainer.streams.strong_view.transforms.transforms = []
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    assert torch.equal(labeled.strong, labeled.weak) and unlabeled.weak.shape == labeled.weak.shape


class WithBothViews(nnUNetTrainerMeanTeacher):
    views = ("labeled.image", "labeled.weak", "unlabeled.image", "unlabeled.strong")


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_whole_augmentation_and_geometry_alone_of_the_same_voxels(make_dataset, configuration):
    trainer = make_trainer(make_dataset(), WithBothViews, configuration)
    trainer.on_train_start()
    trainer.streams.strong_view.transforms.transforms = []
    labeled, unlabeled = trainer.split_batch(next(trainer.dataloader_train))
    for batch in (labeled, unlabeled):
        assert batch.image.shape == batch.weak.shape and not torch.equal(batch.image, batch.weak)
        pairs = [torch.stack([a.flatten(), b.flatten()]) for a, b in zip(batch.image, batch.weak, strict=True)]
        assert all(torch.corrcoef(pair)[0, 1].abs() > 0.5 for pair in pairs)
        assert batch.valid.dtype == torch.bool and batch.valid.shape == batch.weak.shape
    assert torch.equal(unlabeled.strong, unlabeled.weak) and labeled.extra == {}
    with pytest.raises(RuntimeError, match='"labeled.strong" to the attribute `views`'):
        _ = labeled.strong


def test_a_view_that_does_not_exist_is_refused(make_dataset):
    class Misspelled(nnUNetTrainerMeanTeacher):
        views = ("labeled.image", "unlabeled.week")

    with pytest.raises(ValueError, match="Misspelled.views names .*unlabeled.week"):
        make_trainer(make_dataset(preprocess=False), Misspelled)


def test_other_methods_keep_nnunets_augmentation_of_labelled_patches(make_dataset):
    trainer = make_trainer(make_dataset(), nnUNetTrainerMeanTeacher)
    trainer.on_train_start()
    labeled, _ = trainer.split_batch(next(trainer.dataloader_train))
    assert labeled.valid.shape == labeled.image.shape and labeled.valid.any()
    kinds = [type(t).__name__ for t in trainer.dataloader_train.data_loader.labeled.transforms.transforms.transforms]
    assert "RandomTransform" in kinds and not {"KeepWeak", "OnWeakToo"} & set(kinds)
