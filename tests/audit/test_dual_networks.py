"""Dual Networks: when imitation repels, and where the union of two networks is no plain OR."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nnunet_ssl.losses.consistency import uncertainty_rectified_cross_entropy
from nnunet_ssl.losses.pseudo_label import decide, decide_regions, unite
from nnunet_ssl.losses.regions import as_two_classes
from nnunet_ssl.trainers.dual_networks.trainer import REPELLING


def imitation(classes: int, logit: float, detached: bool = False) -> tuple[float, float]:
    """(value, derivative) of L_une by one logit of the student, the others 0, with a uniform teacher."""
    chosen = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    student = torch.stack([chosen, *torch.zeros(classes - 1, dtype=torch.float64)]).view(1, classes, 1)
    loss = uncertainty_rectified_cross_entropy(student, torch.zeros_like(student), detach_weight=detached)
    return loss.item(), torch.autograd.grad(loss, chosen)[0].item()


def test_of_fourteen_classes_leaving_an_uncertain_teacher_pays():
    assert imitation(14, 0.0)[0] == pytest.approx(2.639, abs=5e-4)
    assert imitation(14, 3.0)[0] == pytest.approx(2.368, abs=5e-4)
    assert min(imitation(14, 0.25 * i)[1] for i in range(1, 13)) < -0.05


@pytest.mark.parametrize("classes", [2, 4])
def test_of_few_classes_it_never_does(classes):
    values = [imitation(classes, 0.25 * i)[0] for i in range(25)]
    assert values == sorted(values) and values[-1] > values[0] + 1


def test_classes_from_which_on_the_trainer_detaches_are_those_that_repel():
    repels = {k: any(imitation(k, 0.25 * i)[1] < 0 for i in range(1, 17)) for k in (2, 4, 7, 8, 14)}
    assert repels == {k: k >= REPELLING for k in repels}
    assert all(imitation(k, 0.25 * i, detached=True)[1] > 0 for k in (8, 14) for i in range(1, 17))


def random_logits(seed: int, channels: int = 1) -> Tensor:
    return torch.randn(1, channels, 200, 200, generator=torch.Generator().manual_seed(seed))


def test_the_only_reliable_network_decides_against_a_plain_or_in_a_ninth_to_a_twelfth_of_the_voxels():
    """9 % of the valid voxels were found on random logits, 8.3 % are expected; a region is treated like two classes."""
    first, second = random_logits(0), random_logits(1)
    labels, valid = unite(*(decide(as_two_classes(z)) for z in (first, second)))
    of_region, valid_region = unite(*(decide_regions(z) for z in (first, second)))
    assert torch.equal(of_region[:, 0], labels) and torch.equal(valid_region, valid)
    plain = (torch.maximum(first, second) > 0).long()[:, 0]
    differ = (labels != plain)[valid]
    assert differ.double().mean() == pytest.approx(0.085, abs=0.01)
    assert not labels[valid][differ].any()  # what the reliable network takes for background
