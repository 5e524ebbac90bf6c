from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ssl.trainers.skcdf.transfer import TRANSFER_ORDERS, Branch, knowledge_transfer, transfer_knowledge


class Scalar(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value, dtype=torch.float64))


class Normed(nn.Sequential):
    """Parameters and buffers, with a head as the last layer."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))


def scalars(labeled: tuple[float, float, float], unlabeled: tuple[float, float, float]) -> tuple[Branch, Branch]:
    """Branches of (body, main head, auxiliary head)."""
    first, second = (Branch(*(Scalar(value) for value in values)) for values in (labeled, unlabeled))
    return first, second


def values(branch: Branch) -> list[float]:
    return [module.value.item() for module in branch]  # type: ignore[union-attr]


def parameters(branch: Branch) -> list[nn.Parameter]:
    return [*nn.ModuleList([module for module in branch if module is not None]).parameters()]


def norm(labeled: Branch, unlabeled: Branch) -> float:
    pairs = zip(labeled.decoder.parameters(), unlabeled.decoder.parameters(), strict=True)
    return sum((a - b).detach().square().sum().item() for a, b in pairs) ** 0.5


# ---- one transfer


def test_parameters_move_and_buffers_do_not():
    torch.manual_seed(0)
    target, source = Normed(), Normed()
    source(torch.randn(2, 1, 8, 8))  # running statistics differ now
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    transfer_knowledge(target, source, 0.75)
    learnable = {name for name, _ in target.named_parameters()}
    for name, tensor in target.state_dict().items():
        expected = 0.75 * before[name] + 0.25 * kept[name] if name in learnable else before[name]
        torch.testing.assert_close(tensor, expected, msg=name)
        assert torch.equal(source.state_dict()[name], kept[name])
    assert all(p.grad_fn is None and p.requires_grad for p in target.parameters())


@pytest.mark.parametrize("decay", [0.1, 0.5, 0.9, 0.99])
def test_equal_modules_stay_equal_to_the_last_bit(decay):
    torch.manual_seed(0)
    target, source = nn.Linear(64, 64), nn.Linear(64, 64)
    target.load_state_dict(source.state_dict())
    for _ in range(10):
        transfer_knowledge(target, source, decay)
    assert torch.equal(target.weight, source.weight) and torch.equal(target.bias, source.bias)


def test_a_shared_parameter_keeps_its_value():
    target, source = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    source[0] = target[0]
    shared, own = target[0].weight.clone(), target[1].weight.clone()
    transfer_knowledge(target, source, 0.5)
    assert torch.equal(target[0].weight, shared)
    torch.testing.assert_close(target[1].weight, (own + source[1].weight) / 2)


def test_storage_is_not_replaced():
    # flattened buckets of DDP hold on to it
    target, source = nn.Linear(2, 2), nn.Linear(2, 2)
    address = target.weight.data_ptr()
    transfer_knowledge(target, source, 0.5)
    assert target.weight.data_ptr() == address


# ---- orders


@pytest.mark.parametrize(
    "order, labeled_main, unlabeled_main, unlabeled_auxiliary",
    [
        ("D", 0.0, 0.0, 0.01),
        ("H->D", 0.01, 1.0e-4, 0.01),
        ("D->H->H", 0.01, 1.0e-4, 0.01),
        ("H->H->D", 0.01, 1.0e-4, 0.01),
        ("H->D->H", 0.01, 1.99e-4, 0.01),
    ],
)
def test_orders_on_scalars(order, labeled_main, unlabeled_main, unlabeled_auxiliary):
    labeled, unlabeled = scalars((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    knowledge_transfer(order, labeled, unlabeled, 0.99)
    assert values(labeled) == pytest.approx([0.0, labeled_main, 1.0], rel=1e-12)
    assert values(unlabeled) == pytest.approx([0.0, unlabeled_main, unlabeled_auxiliary], rel=1e-12)


@pytest.mark.parametrize(
    "order, unlabeled_main",
    [
        # w^2 u + w (1 - w) l + w (1 - w) a_u + (1 - w)^2 a_l and what each order adds to it or leaves out, w = 3/4
        ("D", (3 * 5 + 2) / 4),
        ("H->D", (12 * 5 + 3 * 2 + 3) / 16),
        ("D->H->H", (9 * 5 + 3 * 2 + 3 * 7 + 3) / 16),
        ("H->H->D", (9 * 5 + 3 * 2 + 3 * 7 + 3) / 16),
        ("H->D->H", (9 * 5 + 3 * 2 + 3 * 7 + 3) / 16 + 3 / 64 * (3 - 2)),
    ],
)
def test_orders_in_closed_form(order, unlabeled_main):
    labeled, unlabeled = scalars((11.0, 2.0, 3.0), (13.0, 5.0, 7.0))
    knowledge_transfer(order, labeled, unlabeled, 0.75)
    assert values(unlabeled)[1] == pytest.approx(unlabeled_main, rel=1e-12)
    assert values(unlabeled)[0] == 12.5
    assert values(unlabeled)[2] == 6.0
    assert values(labeled) == [11.0, 2.0 if order == "D" else 2.25, 3.0]


def test_the_orders_are_the_rows_of_the_table():
    assert [*TRANSFER_ORDERS] == ["D", "H->D", "D->H->H", "H->H->D", "H->D->H"]


def test_heads_can_have_a_decay_of_their_own():
    labeled, unlabeled = scalars((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    knowledge_transfer("H->D->H", labeled, unlabeled, 0.99, head_decay=1.0)
    assert values(labeled) == [0.0, 0.0, 1.0]
    assert values(unlabeled) == pytest.approx([0.0, 0.0, 0.01])


@pytest.mark.parametrize("order", [*TRANSFER_ORDERS])
def test_a_head_inside_the_decoder_moves_only_once(order):
    outside = [Branch(nn.ModuleList([Scalar(b)]), Scalar(m), Scalar(a)) for b, m, a in ((1, 2, 3), (4, 5, 6))]
    inside = []
    for b, m, a in ((1, 2, 3), (4, 5, 6)):
        head = Scalar(m)
        inside.append(Branch(nn.ModuleList([Scalar(b), head]), head, Scalar(a)))
    knowledge_transfer(order, *outside, 0.9)
    knowledge_transfer(order, *inside, 0.9)
    for one, other in zip(outside, inside, strict=True):
        assert [p.item() for p in parameters(one)] == [p.item() for p in parameters(other)]


# ---- many transfers, training


@pytest.mark.parametrize("steps", [1, 69, 500])
def test_without_training_the_difference_of_the_bodies_shrinks_geometrically(steps):
    torch.manual_seed(0)
    labeled, unlabeled = (
        Branch(nn.Linear(8, 8).double(), nn.Linear(8, 2).double(), nn.Linear(8, 2).double()) for _ in range(2)
    )
    before, fixed = norm(labeled, unlabeled), labeled.decoder.weight.clone()
    for _ in range(steps):
        knowledge_transfer("H->D->H", labeled, unlabeled, 0.99)
    assert norm(labeled, unlabeled) / before == pytest.approx(0.99**steps, rel=1e-9)
    assert torch.equal(labeled.decoder.weight, fixed)


def test_momentum_is_untouched_and_exactly_the_branches_move():
    torch.manual_seed(0)
    encoder = nn.Linear(4, 4)
    labeled, unlabeled = (Branch(nn.Linear(4, 4), nn.Linear(4, 2), nn.Linear(4, 2)) for _ in range(2))
    everything = [*encoder.parameters(), *parameters(labeled), *parameters(unlabeled)]
    optimizer = torch.optim.SGD(everything, lr=0.1, momentum=0.9, nesterov=True)
    sum(p.square().sum() for p in everything).backward()  # type: ignore[union-attr]
    optimizer.step()
    momentum = [optimizer.state[p]["momentum_buffer"].clone() for p in everything]
    gradients = [p.grad.clone() for p in everything if p.grad is not None]
    before = [p.detach().clone() for p in everything]

    knowledge_transfer("H->D->H", labeled, unlabeled, 0.99)
    assert all(torch.equal(optimizer.state[p]["momentum_buffer"], m) for p, m in zip(everything, momentum, strict=True))
    assert all(torch.equal(p.grad, g) for p, g in zip(everything, gradients, strict=True))
    moved = {id(p) for p, b in zip(everything, before, strict=True) if not torch.equal(p, b)}
    # the whole unlabelled branch (one body, two heads) and the labelled main head
    assert moved == {id(p) for p in [*parameters(unlabeled), *labeled.main_head.parameters()]}


# ---- wrong input


def test_wrong_input_is_refused():
    labeled, unlabeled = scalars((0.0, 0.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="H->D->H"):
        knowledge_transfer("D->H", labeled, unlabeled, 0.99)
    with pytest.raises(ValueError, match="decay"):
        knowledge_transfer("D", labeled, unlabeled, -0.1)
    with pytest.raises(ValueError, match="same parameters"):
        transfer_knowledge(nn.Linear(1, 1), nn.Linear(2, 1), 0.5)


def test_without_auxiliary_heads_only_the_decoder_can_move():
    labeled, unlabeled = (Branch(branch.decoder, branch.main_head) for branch in scalars((1, 1, 1), (0, 0, 0)))
    knowledge_transfer("D", labeled, unlabeled, 0.75)
    assert [p.item() for p in parameters(unlabeled)] == [0.25, 0.25]
    with pytest.raises(ValueError, match="auxiliary"):
        knowledge_transfer("H->D->H", labeled, unlabeled, 0.75)
