from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform

from nnunet_ssl.data.batches import UnlabeledBatch
from nnunet_ssl.data.views import NamePadding, augmentation
from nnunet_ssl.training.checkpoint import seed_everything


def ramp(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).view(shape) / np.prod(shape)


def test_weak_view_is_the_geometric_part():
    spatial, mirror = SpatialTransform((8, 8, 8), 0, False), MirrorTransform((0, 1, 2))
    noise = RandomTransform(GaussianNoiseTransform(), 0.1)
    training = ComposeTransforms([spatial, noise, mirror, RemoveLabelTansform(-1, 0)])
    *weak, last = augmentation(training, whole=False, weak=True, labeled=False).transforms
    assert weak == [spatial, mirror] and isinstance(last, NamePadding)


@pytest.mark.parametrize("masked", [[], [1]])
def test_nnunets_own_augmentation_of_the_image_without_what_needs_a_label(masked):
    spatial, mirror = SpatialTransform((8, 8, 8), 0, False), MirrorTransform((0, 1, 2))
    noise = RandomTransform(GaussianNoiseTransform((0.5, 0.5)), 1.0)
    mask = MaskImageTransform(masked or [0])
    training = ComposeTransforms([spatial, noise, mirror, mask, RemoveLabelTansform(-1, 0)])
    first, middle, last, _ = augmentation(training, True, False, labeled=False, masked_channels=masked).transforms
    assert (first, last) == (spatial, mirror) and (middle is noise) == (not masked)
    image = torch.zeros(2, 6, 6, 6)
    image[1, :3] = 1.0
    original = image.clone()
    changed = middle(image=image)["image"]
    assert (changed[0] != 0).all() and (changed[1, :3] != 1).all()
    assert (changed[1, 3:] == 0).all() == bool(masked)
    if masked:
        assert torch.equal(image, original)


@pytest.mark.parametrize("labeled", [True, False])
def test_whole_and_weak_view_of_a_stream_are_voxel_aligned(labeled):
    noise = RandomTransform(GaussianNoiseTransform((0.5, 0.5)), 1.0)
    mask, remove = MaskImageTransform([0]), RemoveLabelTansform(-1, 0)
    steps = [MirrorTransform((0,)), noise, MirrorTransform((1, 2)), mask, remove]
    image, segmentation = torch.randn(1, 6, 6, 6), torch.zeros(2, 6, 6, 6, dtype=torch.int16)
    segmentation[0, :2], segmentation[1, :, :3] = -1, -1  # outside the body; padding

    def views(whole: bool, weak: bool, seed: int = 0) -> dict:
        seed_everything(seed)
        case = {"image": image.clone(), "segmentation": segmentation.clone()[0 if labeled else 1 :]}
        return augmentation(ComposeTransforms(steps), whole, weak, labeled)(**case)

    for seed in range(4):
        both, whole = views(True, True, seed), views(True, False, seed)
        assert torch.equal(both["image"], whole["image"]) and torch.equal(both["valid"], whole["valid"])
        assert "weak" not in whole and both["valid"].sum() == both["valid"].numel() / 2
        error = both["image"] - both["weak"]
        assert 0.1 < error.abs().mean() < 1 and error.abs().max() < 4  # the noise, and no other voxel's value
        assert torch.equal(
            both["weak"].flatten().sort().values, views(False, True, seed)["image"].flatten().sort().values
        )
        if labeled:  # the background is masked in both
            assert torch.equal(both["weak"] == 0, both["image"] == 0) and (both["weak"] == 0).sum() == 72
            assert len(both["segmentation"]) == 1 and both["segmentation"].min() == 0
    assert "weak" not in views(False, True)  # it is the image then


def test_views_that_were_not_computed_are_named():
    batch = UnlabeledBatch(torch.zeros(2, 1, 4), None)
    assert len(batch) == 2 and batch.valid.all() and batch.valid.shape == (2, 1, 4)
    for view in ("image", "strong"):
        with pytest.raises(RuntimeError, match=f'Add "unlabeled.{view}" to the attribute `views`'):
            getattr(batch, view)


def test_strong_view_is_made_once_and_only_when_asked_for():
    calls = []

    def make(weak):
        calls.append(1)
        return weak + 1

    batch = UnlabeledBatch(torch.zeros(1), torch.ones(1, dtype=torch.bool), make)
    assert not calls
    assert batch.strong is batch.strong and calls == [1]
