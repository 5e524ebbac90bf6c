from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.data.intensity import BlurOnDevice, OnDevice
from nnunet_ssl.data.strong_view import AtLeastOne, StrongView, gamma_away_from_one
from nnunet_ssl.training.checkpoint import seed_everything

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


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
    assert (strong - images).abs().flatten(1).amax(1).min() > 0.01 and torch.isfinite(strong).all()


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
    low_resolution = view.drawn.transforms[4].transform
    seed_everything(0)
    assert all((low_resolution.get_parameters(image=torch.zeros(8, 4, 9, 9))["scales"][:, 0] == 1).tolist())


def test_a_method_can_add_transforms():
    class Negate(BasicTransform):
        def __call__(self, **data):
            return {**data, "image": -data["image"]}

    view = StrongView(extra=(Negate(),))
    plain = StrongView()
    images = torch.randn(2, 1, 8, 8)
    seed_everything(0)
    expected = -plain(images)
    seed_everything(0)
    assert torch.equal(view(images), expected)


def test_gamma_stays_away_from_one():
    torch.manual_seed(0)
    gammas = torch.tensor([gamma_away_from_one() for _ in range(1000)])
    assert 0.4 <= gammas.min() < 0.42 and 2.4 < gammas.max() <= 2.5 and not ((gammas > 0.7) & (gammas < 1.42)).any()
    assert 400 < (gammas > 1).sum() < 600 and abs(gammas.log().mean()) < 0.07


# ---- at least one


class Add(ImageOnlyTransform):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def _apply_to_image(self, img, **_):
        return img + self.value


class Hidden(Add):
    pass


def drawn(steps: list[tuple[float, ImageOnlyTransform]], hidden: tuple[type, ...], times: int = 2000) -> torch.Tensor:
    torch.manual_seed(0)
    transform = AtLeastOne(steps, hidden)
    return torch.tensor([transform.get_parameters(image=torch.zeros(1, 2))["drawn"] for _ in range(times)])


def test_at_least_one_visible_transform_is_drawn():
    found = drawn([(0.5, Hidden(1.0)), (0.3, Add(2.0)), (0.1, Add(4.0))], (Hidden,))
    assert found[:, 1:].any(1).all() and not found[:, 0].all()
    none = 0.7 * 0.9
    first, second = 1 / 0.3 - 1, 1 / 0.1 - 1  # not drawn, random / probability is uniform in (1, 1 + this)
    forced = none * (1 - first / 2 / second)
    assert found[:, 0].float().mean() == pytest.approx(0.5, abs=0.03)
    assert found[:, 1].float().mean() == pytest.approx(0.3 + forced, abs=0.03)
    assert (found[:, 1] & found[:, 2]).float().mean() == pytest.approx(0.03, abs=0.015)  # no second one is forced


def test_nothing_is_forced_where_nothing_counts():
    found = drawn([(0.5, Hidden(1.0)), (0.0, Hidden(2.0))], (Hidden,))
    assert 0.45 < found[:, 0].float().mean() < 0.55 and not found[:, 1].any()


def test_drawn_transforms_are_applied_in_their_order():
    image = AtLeastOne([(1.0, Add(1.0)), (0.0, Add(10.0)), (1.0, Hidden(100.0))])(image=torch.zeros(1, 2))["image"]
    assert image.tolist() == [[101.0, 101.0]]


# ---- what a network behind an instance norm sees of it

INVISIBLE = 0.002  # mean absolute change of the softmax
KINDS = {
    "2d": ((1, 48, 48), None, ()),
    "3d": ((1, 16, 24, 24), None, ()),
    "anisotropic": ((1, 6, 32, 32), (0,), ()),
    "three channels": ((3, 48, 48), None, ()),
    "background kept at zero": ((2, 48, 48), None, (0, 1)),
}


def images_with_labels(shape: tuple[int, ...], number: int, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Textured patches (N, C, *P), normalised, with a bright ellipsoid, and where that is (N, *P)."""
    generator = torch.Generator().manual_seed(3)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape[1:]), indexing="ij")
    centres = torch.rand(number, len(axes), generator=generator) - 0.5
    radius = sum((axis - centres[:, i].view(-1, *[1] * len(axes))) ** 2 for i, axis in enumerate(axes))
    label = radius < 0.15
    pool = F.avg_pool2d if len(axes) == 2 else F.avg_pool3d
    texture = torch.randn(number, *shape, generator=generator)
    texture = pool(texture, 3, stride=1, padding=1) * 1.5
    images = texture + 0.7 * label.unsqueeze(1)
    if masked:
        images = images * (radius < 1.0).unsqueeze(1)
    return (images - images.mean()) / images.std() if not masked else images, label.long()


def network(shape: tuple[int, ...], steps: int, masked: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """Probabilities of a small U-Net of nnU-Net's kind after so many steps of training."""
    torch.manual_seed(0)
    flat = len(shape) == 3
    strides = [1, 2, 2] if shape[1] > 8 else [[1] * 3, [1, 2, 2], [2, 2, 2]]
    net = PlainConvUNet(
        shape[0], 3, (8, 16, 32), nn.Conv2d if flat else nn.Conv3d, 3, strides, 2, 2, 2, conv_bias=True,
        norm_op=nn.InstanceNorm2d if flat else nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    net.apply(net.initialize)
    images, label = images_with_labels(shape, 8, masked)
    optimizer = torch.optim.AdamW(net.parameters(), 0.003)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(images), label).backward()
        optimizer.step()
    return torch.no_grad()(lambda x: net(x).softmax(1))


def change(net: Callable, view: Callable, images: torch.Tensor) -> torch.Tensor:
    """Mean absolute change of the softmax by a view of each image, (N,)."""
    return (net(view(images)) - net(images)).abs().flatten(1).mean(1)


class Before(StrongView):
    """The recipe of earlier versions: nnU-Net's transforms with wider ranges."""

    faint = (ImageOnlyTransform,)

    def steps(self, ignore_axes):
        contrast = ContrastTransform(BGContrast((0.5, 1.6)), preserve_range=True, synchronize_channels=False)
        low_resolution = SimulateLowResolutionTransform((0.5, 1), False, True, ignore_axes, p_per_channel=0.5)
        gammas = (GammaTransform(BGContrast((0.6, 1.7)), p, False, 1, 1) for p in (1, 0))
        return [
            (0.3, OnDevice(GaussianNoiseTransform((0, 0.1), 1, True))),
            (0.3, BlurOnDevice(GaussianBlurTransform((0.5, 1.5), False, False, 0.5))),
            (0.5, OnDevice(MultiplicativeBrightnessTransform(BGContrast((0.6, 1.5)), False))),
            (0.5, OnDevice(contrast)),
            (0.25, OnDevice(low_resolution)),
            *((p, OnDevice(gamma)) for p, gamma in zip((0.15, 0.3), gammas, strict=True)),
        ]


@pytest.mark.parametrize("steps", [0, 25], ids=["untrained", "briefly trained"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_behind_an_instance_norm_sees_nearly_every_strong_view(kind, steps):
    shape, ignored, masked = KINDS[kind]
    net = network(shape, steps, bool(masked))
    images, _ = images_with_labels(shape, 128 if len(shape) == 3 else 64, bool(masked))
    seed_everything(5)
    seen = change(net, StrongView(ignored, masked_channels=masked), images)
    assert (seen < INVISIBLE).float().mean() < 0.05, seen.sort().values[:8]


def test_the_recipe_of_earlier_versions_and_brightness_are_often_invisible():
    shape = KINDS["2d"][0]
    net = network(shape, 25, False)
    images, _ = images_with_labels(shape, 128, False)
    seed_everything(5)
    assert (change(net, Before(), images) < INVISIBLE).float().mean() > 0.15
    brightness = MultiplicativeBrightnessTransform(BGContrast((0.6, 1.5)), False)
    only = torch.stack([brightness(image=image)["image"] for image in images.clone()])
    assert (change(net, lambda _: only, images) < INVISIBLE).all()
