"""The queue of embeddings per class: order, capacity, statistics, checkpoint, and PLGCL's loss on top of it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunet_ssl.losses.gaussian_contrast import gaussian_info_nce, mean_cosine
from nnunet_ssl.trainers.plgcl.class_memory import ClassMemory
from nnunet_ssl.training.ema import update_ema


def numbered(*numbers: int) -> torch.Tensor:
    """Keys that can be told apart."""
    return torch.tensor(numbers, dtype=torch.float32)[:, None].expand(-1, 2).clone()


def held(memory: ClassMemory, k: int) -> list[int]:
    return sorted(memory.keys[k, : int(memory.counts[k]), 0].int().tolist())


def test_first_in_first_out_per_class():
    memory = ClassMemory(3, capacity=4, dimensions=2)
    memory.push(numbered(1, 2, 3, 4, 5), torch.tensor([0, 2, 0, 2, 0]))
    assert memory.counts.tolist() == [3, 0, 2]
    assert (held(memory, 0), held(memory, 2)) == ([1, 3, 5], [2, 4])
    memory.push(numbered(6, 7, 8), torch.tensor([0, 0, 1]))
    assert memory.counts.tolist() == [4, 1, 2]
    assert (held(memory, 0), held(memory, 1)) == ([3, 5, 6, 7], [8])
    memory.push(numbered(*range(10, 20)), torch.zeros(10).long())  # more than fit
    assert held(memory, 0) == [16, 17, 18, 19]
    memory.push(numbered(20), torch.tensor([0]))
    assert held(memory, 0) == [17, 18, 19, 20]


def test_invalid_and_infinite_keys_are_not_kept():
    memory = ClassMemory(2, capacity=4, dimensions=2)
    keys = numbered(1, 2, 3, 4)
    keys[1, 0], keys[2, 1] = math.inf, math.nan
    memory.push(keys, torch.tensor([0, 0, 0, 1]), torch.tensor([True, True, True, False]))
    assert memory.counts.tolist() == [1, 0] and held(memory, 0) == [1]
    memory.push(keys, torch.tensor([1, 1, 1, 1]), torch.zeros(4, dtype=torch.bool))
    assert memory.counts.tolist() == [1, 0]
    means, covariances = memory.statistics()
    assert means.isfinite().all() and covariances.isfinite().all()


@pytest.mark.parametrize("covariance", ["full", "diag", "none"])
def test_statistics_before_and_after_the_first_round(covariance):
    generator = torch.Generator().manual_seed(0)
    memory = ClassMemory(2, capacity=8, dimensions=3, dtype=torch.float64)
    history = torch.randn(13, 3, generator=generator, dtype=torch.float64)
    for step in range(13):
        memory.push(history[step : step + 1], torch.ones(1).long())
        kept = history[max(0, step - 7) : step + 1]
        full = torch.cov(kept.T, correction=0)
        expected = {"full": full, "diag": full.diag().diag(), "none": 0 * full}[covariance]
        means, covariances = memory.statistics(covariance)
        torch.testing.assert_close(means[1], kept.mean(0))
        torch.testing.assert_close(covariances[1], expected)
        assert not means[0].any() and not covariances[0].any()


def test_state_survives():
    memory, other = (ClassMemory(2, capacity=3, dimensions=2) for _ in range(2))
    memory.push(numbered(1, 2, 3, 4), torch.zeros(4).long())
    other.load_state_dict(memory.state_dict())
    for m in (memory, other):
        m.push(numbered(5), torch.zeros(1).long())
    assert held(other, 0) == held(memory, 0) == [3, 4, 5]
    assert not list(memory.parameters())


# ---- toy training: the loss on features that can collapse (PLGCL's specification, table j.12)

RUNS, BATCH, MANY = 4, 48, 4096 / 3  # three seeds, and a fourth run with random labels


def toy_training(zeta: float, weight: float, ramp: bool = False) -> dict[str, torch.Tensor]:
    """300 steps of four independent small networks: loss and mean inter-class cosine at both ends, accuracy; (4,) each.

    They share one loop, memory and loss, for speed: run r has the classes 3 r to 3 r + 2, and sees no others.
    """
    generator = torch.Generator().manual_seed(0)
    centers = 2 * F.normalize(torch.randn(RUNS, 3, 16, generator=generator), dim=2)
    run = torch.arange(RUNS)[:, None]
    visible = F.one_hot(run.expand(RUNS, BATCH).flatten(), RUNS).bool().repeat_interleave(3, 1)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def draw(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.randint(0, 3, (RUNS, number), generator=generator)
        return centers[run, y] + 0.7 * noise(RUNS, number, 16), y

    class Networks(nn.Module):
        """Linear(16, 32), LeakyReLU, Linear(32, 16) per run, drawn as torch's; the last bias starts near collapse."""

        def __init__(self) -> None:
            super().__init__()
            layers = [[nn.Linear(16, 32), nn.Linear(32, 16)] for _ in range(RUNS)]
            for first, second in layers:
                for layer in (first, second):
                    bound = layer.in_features**-0.5
                    for parameter in layer.parameters():
                        parameter.data.uniform_(-bound, bound, generator=generator)
                second.bias.data += 1.0
            stacked = [torch.stack([pair[i].weight.data.T for pair in layers]) for i in (0, 1) for n in ("weight",)]
            biases = [torch.stack([pair[i].bias.data for pair in layers])[:, None] for i in (0, 1)]
            self.weights, self.biases = (nn.ParameterList(x) for x in (stacked, biases))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = F.leaky_relu(x @ self.weights[0] + self.biases[0], 0.01)
            return F.normalize(hidden @ self.weights[1] + self.biases[1], dim=2)

    student = Networks()
    teacher = copy.deepcopy(student).requires_grad_(False)
    memory = ClassMemory(3 * RUNS, capacity=256, dimensions=16)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    losses, cosines = [], []
    for step in range(300):
        x, y = draw(BATCH)
        y[-1] = torch.randint(0, 3, (BATCH,), generator=generator)
        classes = (y + 3 * run).flatten()
        with torch.no_grad():
            memory.push(teacher(x + 0.1 * noise(*x.shape)).flatten(0, 1), classes)
        means, covariances = memory.statistics()
        now = weight * step / 300 if ramp else weight
        queries = student(x).flatten(0, 1)
        loss = (
            gaussian_info_nce(queries, classes, means, covariances, visible, 0.2, now, zeta).view(RUNS, BATCH).mean(1)
        )
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        update_ema(teacher, student, 0.99)
        losses.append(loss.detach())
        if step in (0, 299):
            every = torch.ones(3, dtype=torch.bool)
            cosines.append(torch.stack([mean_cosine(m, every)[0] for m in means.view(RUNS, 3, 16)]))
    with torch.no_grad():
        x, y = draw(2000)
        f = student(x)
        own = torch.stack([torch.stack([f[r][y[r] == k].mean(0) for k in range(3)]) for r in range(RUNS)])
        accuracy = (torch.cdist(f, own).argmin(2) == y).float().mean(1)
    end = torch.stack(losses[-20:]).mean(0)
    return {"start": losses[0], "end": end, "before": cosines[0], "after": cosines[1], "accuracy": accuracy}


@pytest.mark.slow
@pytest.mark.parametrize("ramp", [True, False])
def test_classes_separate_and_random_labels_collapse(ramp):
    found = toy_training(MANY, 4.0, ramp)
    assert (found["start"] - 7.89).abs().max() < 0.03 and found["before"].min() > 0.98
    assert found["end"][:3].max() < 6.2 and found["after"][:3].max() < 0.3 and found["accuracy"][:3].min() > 0.9
    control = {name: value[3].item() for name, value in found.items()}
    assert math.log(1 + 2 * MANY) == pytest.approx(7.9127, abs=1e-4)  # the loss of equal classes
    assert control["end"] == pytest.approx(7.9127, abs=0.02)
    assert control["after"] > 0.99 and control["accuracy"] < 0.85


@pytest.mark.slow
def test_one_negative_and_much_covariance_leave_the_classes_bunched():
    bunched, free = toy_training(1.0, 4.0), toy_training(1.0, 0.0)
    assert (bunched["start"] - 1.085).abs().max() < 0.02
    assert bunched["after"][:3].min() > 0.45 and free["after"][:3].max() < 0.15
    assert bunched["end"][:3].min() > 0.35 and free["end"][:3].max() < 0.3
    assert min(x["accuracy"][:3].min() for x in (bunched, free)) > 0.9
