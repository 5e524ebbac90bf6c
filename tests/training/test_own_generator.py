from __future__ import annotations

import torch

from nnunet_ssl.training import checkpoint as module
from nnunet_ssl.training.checkpoint import generator_state, own_generator, restore_generator

CPU = torch.device("cpu")


def draw(generator: torch.Generator) -> list[float]:
    return torch.rand(4, generator=generator).tolist()


def test_nobody_else_draws_from_it():
    torch.manual_seed(3)
    first, state = own_generator(CPU), torch.get_rng_state()
    before = draw(first)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    torch.rand(5)
    assert draw(own_generator(CPU)) == before
    torch.manual_seed(4)
    assert draw(own_generator(CPU)) != before


def test_it_continues_from_a_checkpoint():
    torch.manual_seed(0)
    first = own_generator(CPU)
    draw(first)
    state, expected = generator_state(first), draw(first)
    torch.manual_seed(9)
    second = own_generator(CPU)
    untouched = draw(own_generator(CPU))
    restore_generator(second, state | {"generator_device": "cuda"}, 2)  # of another kind of device
    assert draw(second) == untouched
    restore_generator(second, state, 2)
    assert draw(second) == expected


def test_other_ranks_begin_elsewhere(monkeypatch):
    torch.manual_seed(0)
    zero = own_generator(CPU)
    state = generator_state(zero)
    monkeypatch.setattr(module, "rank", lambda: 1)
    monkeypatch.setattr(module, "number_of_ranks", lambda: 2)
    seen = [draw(zero)]
    for epoch in (0, 1, 2):
        one = own_generator(CPU)
        restore_generator(one, state, epoch)
        seen.append(draw(one))
    assert len({tuple(x) for x in seen}) == 4
