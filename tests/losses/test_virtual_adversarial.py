"""The noise that changes a prediction most: directions, sizes and distances by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nnunet_ssl.losses.virtual_adversarial import adversarial_noise, dice_distance, of_size

WEIGHTS = torch.tensor([1.0, 2.0], dtype=torch.float64).view(1, 2, 1)
IMAGE = torch.tensor([0.3, 0.1], dtype=torch.float64).view(1, 2, 1)
HALF = 2**-0.5  # root mean square of a vector of two numbers and length 1


def predict(images: Tensor) -> Tensor:
    return (WEIGHTS * images).softmax(1)


def change(noise: Tensor) -> Tensor:
    return dice_distance(predict(IMAGE + noise), predict(IMAGE), squared=False)


def test_one_power_iteration_of_a_linear_model():
    assert predict(IMAGE).flatten().tolist() == pytest.approx([0.52497919, 0.47502081], abs=1e-8)
    start = torch.tensor([0.6, -0.8], dtype=torch.float64).view(1, 2, 1)
    noise = (0.1 * start).requires_grad_()
    loss = change(noise)
    (gradient,) = torch.autograd.grad(loss, noise)
    assert loss.item() == pytest.approx(0.49603709, abs=1e-8)
    assert (0.1 * gradient).flatten().tolist() == pytest.approx([-0.00121752, 0.00243505], abs=1e-8)
    found = adversarial_noise(change, IMAGE, 0.1 * HALF, start=start)
    direction = of_size(found, HALF)
    assert direction.flatten().tolist() == pytest.approx([-0.44721195, 0.89442391], abs=1e-5)
    assert not found.requires_grad
    assert change(direction).item() == pytest.approx(0.51970153, abs=1e-7)
    assert change(0 * direction).item() == pytest.approx(0.49875208, abs=1e-8)
    assert change(-direction).item() == pytest.approx(0.47942615, abs=1e-7)


def test_size_is_that_of_each_sample():
    noise = of_size(torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0)).half() * 7, 0.01)
    sizes = noise.square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(sizes, torch.full((3,), 0.01), rtol=1e-6, atol=0)
    assert not of_size(torch.zeros(1, 1, 3), 0.01).any()
    drawn = adversarial_noise(lambda n: n.sum(), torch.zeros(2, 1, 6), 0.5, iterations=0)
    assert drawn.square().mean(2).sqrt().flatten().tolist() == pytest.approx([0.5, 0.5]) and (drawn < 0).any()


def test_more_iterations_find_worse_noise():
    scale, start = torch.linspace(1, 3, 8), torch.ones(1, 1, 8)

    def change(noise: Tensor) -> Tensor:
        return (scale * noise).square().sum()

    none, once, thrice = (change(adversarial_noise(change, start, 1.0, n, start)).item() for n in (0, 1, 3))
    assert none < once < thrice < 9 * 8


def test_parameters_stay_as_they_are():
    network = torch.nn.Conv1d(1, 2, 3, padding=1)
    before = [p.clone() for p in network.parameters()]
    images = torch.randn(2, 1, 7)
    target = network(images).softmax(1).detach()
    adversarial_noise(lambda n: dice_distance(network(images + n).softmax(1), target), images, 0.1)
    assert all(p.grad is None and torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


@pytest.mark.parametrize(("p", "plain"), [((0.9, 0.1), 0.18), ((0.5, 0.5), 0.5), ((1.0, 0.0), 0.0)])
def test_equal_predictions(p, plain):
    both = torch.tensor(p, dtype=torch.float64).view(1, 2, 1).expand(2, 2, 3)
    assert dice_distance(both, both).item() == pytest.approx(0.0, abs=1e-12)
    assert dice_distance(both, both, squared=False).item() == pytest.approx(plain, abs=1e-8)


def test_distance_by_hand_and_masked():
    p = torch.tensor([[0.8, 0.5], [0.2, 0.5]]).view(1, 2, 2)
    q = torch.tensor([[0.6, 1.0], [0.4, 0.0]]).view(1, 2, 2)
    by_class = [1 - 2 * (0.48 + 0.5) / (0.64 + 0.25 + 0.36 + 1), 1 - 2 * 0.08 / (0.04 + 0.25 + 0.16)]
    assert dice_distance(p, q).item() == pytest.approx(sum(by_class) / 2)
    first = torch.tensor([[[True, False]]])
    assert dice_distance(p, q, first).item() == pytest.approx(dice_distance(p[..., :1], q[..., :1]).item())
    z = torch.randn(1, 2, 2, requires_grad=True)
    empty = dice_distance(z.softmax(1), q, first & False)
    empty.backward()
    assert empty.item() == 0 and not z.grad.any()
    assert dice_distance(p.half(), q.half()).dtype == torch.float32
