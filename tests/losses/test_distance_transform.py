from __future__ import annotations

import pytest
import torch

from nnunet_ssl.losses.distance_transform import distance_to_mask, dual_task_consistency
from nnunet_ssl.losses.signed_distance import signed_distance_map


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(-0.01, 0.99999969), (-0.001, 0.81757448), (0, 0.5), (0.001, 0.18242552), (0.01, 3.06e-7)],
)
def test_values(distance, expected):
    assert distance_to_mask(torch.tensor(float(distance))).item() == pytest.approx(expected, abs=1e-6, rel=1e-3)


def test_gradient_at_the_boundary():
    d, p = torch.tensor(0.0, requires_grad=True), torch.tensor(0.8, requires_grad=True)
    loss = torch.square(distance_to_mask(d) - p)
    loss.backward()
    assert (
        loss.item() == pytest.approx(0.09)
        and d.grad.item() == pytest.approx(225)
        and p.grad.item() == pytest.approx(0.6)
    )


@pytest.mark.parametrize(("before_tanh", "expected"), [(0.001, 0.18242560), (0.01, 3.0606e-7), (0.1, 0.0)])
def test_saturation_stays_finite(before_tanh, expected):
    a = torch.tensor(before_tanh, requires_grad=True)
    mask = distance_to_mask(a.tanh())
    mask.backward()
    assert mask.item() == pytest.approx(expected, rel=1e-4, abs=1e-12) and torch.isfinite(a.grad)


def test_square_differs_from_its_mask_on_the_boundary_alone():
    square = torch.zeros(7, 7)
    square[1:6, 1:6] = 1
    distance = torch.as_tensor(signed_distance_map(square.numpy() > 0)).reshape(7, 7)
    assert torch.square(distance_to_mask(distance) - square).mean().item() == pytest.approx(0.08163265, abs=1e-7)


def test_consistency_counts_what_the_mask_leaves():
    distance = torch.tensor([[[0.0, -0.5], [0.5, 0.0]]], requires_grad=True)  # two classes, two voxels
    probability = torch.tensor([[[0.8, 0.7], [0.1, 0.5]]], requires_grad=True)
    errors = [0.09, 0.09, 0.01, 0.0]
    assert dual_task_consistency(distance, probability).item() == pytest.approx(sum(errors) / 4)
    second = torch.tensor([[[False, True]]])  # of the voxels
    assert dual_task_consistency(distance, probability, second).item() == pytest.approx(0.09 / 2)
    class_of_voxel = torch.tensor([[[True, False], [True, True]]])
    assert dual_task_consistency(distance, probability, class_of_voxel).item() == pytest.approx(0.1 / 3)
    nothing = dual_task_consistency(distance, probability, second & False)
    assert nothing.item() == 0 and not any(g.any() for g in torch.autograd.grad(nothing, (distance, probability)))
    assert dual_task_consistency(distance.half(), probability.half()).dtype == torch.float32


@pytest.mark.parametrize(("detach", "reached"), [("none", (1, 1)), ("segmentation", (1, 0)), ("distance", (0, 1))])
def test_sides_without_gradient(detach, reached):
    both = torch.zeros(1, 1, 2, requires_grad=True), torch.full((1, 1, 2), 0.8, requires_grad=True)
    loss = dual_task_consistency(*both, steepness=4.0, detach=detach)
    loss.backward()
    assert loss.item() == pytest.approx(0.09)
    assert tuple(int(x.grad is not None and bool(x.grad.any())) for x in both) == reached
    if detach == "none":
        assert both[0].grad.flatten().tolist() == pytest.approx([0.3, 0.3])  # 2 * .3 * 4 / 4, of two voxels
