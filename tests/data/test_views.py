from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from scipy.ndimage import gaussian_filter

from nnunet_ssl.data.batches import UnlabeledBatch
from nnunet_ssl.data.views import BlurOnDevice, NamePadding, OnDevice, StrongView, augmentation
from nnunet_ssl.training.checkpoint import seed_everything

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def ramp(*shape: int) -> torch.Tensor:
    return torch.arange(float(np.prod(shape))).view(shape) / np.prod(shape)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(4, 2, 12, 14, 10), (4, 1, 20, 18)])
def test_strong_view_changes_intensities_and_keeps_shape_and_input(shape, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    seed_everything(0)
    images = torch.randn(shape, device=device)
    before = images.clone()
    strong = StrongView()(images)
    assert strong.shape == images.shape and strong.dtype == torch.float32 and strong.device == images.device
    assert torch.equal(images, before)
    assert not torch.equal(strong, images) and torch.isfinite(strong).all()


def test_strong_view_keeps_geometry():
    """A bright cube stays where it is: the brightest voxels after any photometric change lie inside it."""
    seed_everything(1)
    images = torch.zeros(16, 1, 16, 16, 16)
    images[..., 4:10, 6:12, 3:9] = 5.0
    strong = StrongView()(images)
    inside = strong[..., 5:9, 7:11, 4:8].mean((1, 2, 3, 4))
    outside = strong[..., 12:, :, 12:].mean((1, 2, 3, 4))
    assert (inside > outside + 1).all()


def test_samples_draw_their_own_parameters_and_the_seed_repeats_them():
    images = torch.randn(1, 1, 10, 10, 10).repeat(6, 1, 1, 1, 1)
    seed_everything(2)
    first = StrongView()(images)
    seed_everything(2)
    assert torch.equal(first, StrongView()(images))
    assert len({round(float(x.mean() + x.std()), 6) for x in first}) > 1


def test_low_resolution_leaves_the_slice_axis_alone():
    view = StrongView(ignore_axes=(0,))
    low_resolution = view.transforms.transforms[4].transform.transform
    seed_everything(0)
    assert all((low_resolution.get_parameters(image=torch.zeros(8, 4, 9, 9))["scales"][:, 0] == 1).tolist())


def test_a_method_can_add_transforms():
    class Negate(OnDevice):
        def __init__(self):
            pass

        def __call__(self, **data):
            return {**data, "image": -data["image"]}

    view = StrongView(extra=(Negate(),))
    plain = StrongView()
    images = torch.randn(2, 1, 8, 8)
    seed_everything(0)
    expected = -plain(images)
    seed_everything(0)
    assert torch.equal(view(images), expected)


def test_transforms_on_device_equal_the_library():
    transforms = [step.transform for step in StrongView().transforms.transforms]
    checked = [t.transform for t in transforms if isinstance(t, OnDevice)]
    assert len(checked) == 6 == len(transforms) - 1  # all but the blur, which is filtered otherwise
    for transform in checked:
        image = torch.randn(8, 6, 7, 8, generator=torch.Generator().manual_seed(0))
        seed_everything(4)
        expected = transform(image=image.clone())["image"]
        assert not torch.equal(expected, image)
        seed_everything(4)
        assert torch.equal(OnDevice(transform)(image=image.clone())["image"], expected)


def test_blur_is_a_gaussian_filter_with_replicated_border():
    blur = BlurOnDevice(GaussianBlurTransform((1.0, 1.0), False, True, 1.0))
    image = torch.randn(1, 12, 14, 10)
    expected = gaussian_filter(image[0].numpy().astype(np.float64), 1.0, mode="nearest")
    np.testing.assert_allclose(blur(image=image.clone())["image"][0].numpy(), expected, atol=1e-5)


def test_blur_touches_the_chosen_channels_alone():
    blur = BlurOnDevice(GaussianBlurTransform((0.5, 1.0), False, False, 0.5))
    seed_everything(0)
    image = torch.randn(8, 9, 9, 9)
    blurred = blur(image=image.clone())["image"]
    changed = [not torch.equal(a, b) for a, b in zip(image, blurred, strict=True)]
    assert any(changed) and not all(changed)


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
