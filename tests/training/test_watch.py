from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from nnunet_ssl.trainers.dual_networks import nnUNetTrainerDualNetworks
from nnunet_ssl.trainers.mean_teacher import nnUNetTrainerMeanTeacher
from nnunet_ssl.training import curves
from nnunet_ssl.training.watch import Concerns, pull_of_terms, shares_kept, steps_to_look_at
from tests.running import SHORT, make_trainer, run_ranks, same_weights, weights

NAN = math.nan


# ---- pull


def two_weights() -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([1.0, 2.0]))


def test_pull_is_the_share_of_the_whole_gradient():
    first, second = two_weights()
    terms = {"a": 3 * first.sum(), "b": 4 * second[0], "nothing": torch.zeros(()), "elsewhere": two_weights()[0].sum()}
    pull = pull_of_terms(terms, [first, second])
    assert {name: value.item() for name, value in pull.items()} == pytest.approx({"a": 0.6, "b": 0.8, "elsewhere": 0.0})
    assert first.grad is None and second.grad is None
    sum(terms.values()).backward()  # the graph is still there
    assert first.grad.item() == 3.0 and second.grad.tolist() == [4.0, 0.0]


def test_opposite_terms_pull_harder_than_their_sum():
    first, _ = two_weights()
    pull = pull_of_terms({"up": 3 * first.sum(), "down": -2 * first.sum()}, [first])
    assert (pull["up"].item(), pull["down"].item()) == pytest.approx((3.0, 2.0))


def test_scale_and_frozen_weights_change_nothing():
    first, second = two_weights()
    terms = {"a": 3 * first.sum(), "b": (second * first).sum()}
    plain = pull_of_terms(terms, [first, second])
    scaled = pull_of_terms(terms, [first, second], 1024.0)
    assert {n: v.item() for n, v in plain.items()} == pytest.approx({n: v.item() for n, v in scaled.items()})
    second.requires_grad_(False)
    assert pull_of_terms({"a": 3 * first.sum()}, [first, second])["a"].item() == 1.0


def test_no_gradient_at_all_is_no_number():
    first, _ = two_weights()
    assert pull_of_terms({"a": 0 * first.sum()}, [first])["a"].isnan()


@pytest.mark.parametrize(("looks", "steps"), [(2, 250), (2, 3), (1, 1), (3, 2)])
def test_looks_are_spread_over_an_epoch(looks, steps):
    chosen = steps_to_look_at(looks, steps)
    assert chosen and max(chosen) < steps and len(chosen) == min(looks, steps)
    assert not steps_to_look_at(0, steps)


@pytest.mark.parametrize(("steps", "epochs"), [(250, 1), (1000, 1), (100, 3), (8, 32)])
def test_short_epochs_have_no_more_looks_than_long_ones(steps, epochs):
    chosen = [e for e in range(4 * epochs + 5) if steps_to_look_at(2, steps, e)]
    assert chosen == sorted({*range(5), *range(0, 4 * epochs + 5, epochs)})


def plain(trainer: Any) -> None:
    """As it is on a CPU."""


def in_half_precision(trainer: Any) -> None:
    trainer.mixed_precision = lambda: torch.autocast("cpu", dtype=torch.bfloat16)


def compiled(trainer: Any) -> None:
    trainer._do_i_compile = lambda: True


def watched(
    dataset: Path, kind: type, looks: int, prepare: Callable[[Any], None] = plain, steps: int = 3
) -> tuple[list[torch.Tensor], torch.Tensor, dict[str, float]]:
    """(weights, random numbers, pulls) after an epoch of so many steps with so many looks."""
    trainer = make_trainer(
        dataset, kind, "2d", fold="all", hyperparameters={"pull_looks": looks},
        training={"seed": 1, "num_iterations_per_epoch": steps},
    )  # fmt: skip
    prepare(trainer)
    trainer.initialize()
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
    pulls = {n: v for n, v in trainer.monitor.epoch_means().items() if n.startswith("pull_")}
    return weights(trainer.network), torch.get_rng_state(), pulls


@pytest.mark.parametrize("prepare", [plain, in_half_precision, pytest.param(compiled, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [nnUNetTrainerMeanTeacher, nnUNetTrainerDualNetworks])
def test_watching_changes_no_weight_and_no_random_number(make_dataset, monkeypatch, kind, prepare):
    dataset, compile_it = make_dataset(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compile_it(module, backend="aot_eager"))
    (before, state, nothing), (after, other, pulls) = (watched(dataset, kind, looks, prepare) for looks in (0, 2))
    assert same_weights(before, after) and torch.equal(state, other)
    assert not nothing and pulls and all(math.isfinite(value) and value >= 0 for value in pulls.values())
    assert max(pulls.values()) > 0.5


def on_a_rank(rank: int, dataset: Path) -> list[Any]:
    return [watched(dataset, nnUNetTrainerMeanTeacher, looks) for looks in (0, 2)]


def test_watching_changes_nothing_on_several_ranks(make_dataset, tmp_path):
    ranks = run_ranks(on_a_rank, make_dataset(), tmp_path)
    for (before, state, _), (after, other, _) in ranks:
        assert same_weights(before, after) and torch.equal(state, other)
    (_, (first, _, pulls)), (_, (second, _, others)) = ranks
    assert same_weights(first, second)
    assert pulls == others and pulls["pull_supervised"] > 0.5  # the mean over the ranks


@pytest.mark.parametrize("kind", [nnUNetTrainerMeanTeacher, nnUNetTrainerDualNetworks])
def test_each_look_costs_one_backward_pass_per_term(make_dataset, monkeypatch, kind):
    passes, gradients = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: passes.append(1) or gradients(*a, **k))
    *_, pulls = watched(make_dataset(), kind, 2, steps=6)
    assert len(passes) == 2 * len(pulls)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_watching_in_mixed_precision_on_a_device(make_dataset):
    dataset, pulls = make_dataset(), []
    for looks in (0, 2):
        trainer = make_trainer(
            dataset, nnUNetTrainerMeanTeacher, device="cuda", hyperparameters={"pull_looks": looks},
            training={**SHORT, "num_epochs": 1, "num_iterations_per_epoch": 4},
        )  # fmt: skip
        trainer.run_training()
        pulls.append(trainer.logger.local_logger.my_fantastic_logging.get("ssl/pull_supervised"))
    assert pulls[0] is None and 0.5 < pulls[1][0] < 2


def test_pull_is_logged_drawn_and_warned_of(make_dataset, monkeypatch):
    """In the CSV, in the figure, in nnU-Net's logger, and in its log in plain words."""
    figures = []
    monkeypatch.setattr(curves, "draw_png", lambda table, folder: figures.append(table))
    trainer = make_trainer(
        make_dataset(), nnUNetTrainerMeanTeacher, "2d", hyperparameters={"consistency_weight": 1e-9},
        training={**SHORT, "num_epochs": 5, "num_iterations_per_epoch": 2},
    )  # fmt: skip
    trainer.run_training()
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    assert (table["pull_consistency"] < 1e-6).all() and table["pull_supervised"].to_numpy() == pytest.approx(
        1, abs=1e-3
    )
    assert "pull_consistency" in figures[-1]
    logged = trainer.logger.local_logger.my_fantastic_logging["ssl/pull_consistency"]
    assert logged == pytest.approx(table["pull_consistency"].tolist(), rel=1e-3)
    text = Path(trainer.log_file).read_text()
    assert text.count("The loss term consistency has done next to nothing for 5 epochs") == 1


def test_a_class_that_is_shut_out_is_named_in_the_log(make_dataset, no_figures):
    trainer = make_trainer(
        make_dataset(), nnUNetTrainerDualNetworks, "2d",
        training={**SHORT, "num_epochs": 2, "num_iterations_per_epoch": 2},
    )  # fmt: skip
    labels_for_both = trainer._labels_for_both

    def without_the_first_class(own):
        labels = torch.arange(own[0].label.numel()).view_as(own[0].label) % 3  # every class is labelled
        kept = labels != 1
        return tuple((labels, kept) for _ in labels_for_both(own))

    trainer._labels_for_both = without_the_first_class
    trainer.run_training()
    table = pd.read_csv(Path(trainer.output_folder, "semi_supervised.csv"))
    assert table["kept_1"].tolist() == [0.0, 0.0] and table["kept_2"].tolist() == [1.0, 1.0]
    text = Path(trainer.log_file).read_text()
    assert text.count("No pseudo-label of class 1 has entered the loss for 2 epochs") == 1
    assert "No pseudo-label of class 2" not in text


# ---- what filters let through


def test_share_of_each_class_that_is_kept():
    label = torch.tensor([0, 0, 1, 1, 1, 2]).view(1, 1, 1, 6)
    keep = torch.tensor([1, 0, 1, 1, 0, 1]).view(1, 1, 1, 6).bool()
    valid = torch.tensor([1, 1, 1, 1, 1, 0]).view(1, 1, 1, 6).bool()
    found = {k: (share.item(), shown.item()) for k, share, shown in shares_kept(label, keep, valid, 3)}
    assert found == {0: (0.5, 1.0), 1: (pytest.approx(2 / 3), 1.0), 2: (0.0, 0.0)}


# ---- warnings


def warnings_of(history: dict[str, list[float]], progress: float = 0.5) -> list[str]:
    given: list[str] = []
    concerns = Concerns(lambda _, message: given.append(message))
    concerns.consider(history, progress)
    concerns.consider(history, progress)  # each is given once
    return given


def test_a_term_without_pull():
    weak = {"pull_contrast": [0.5, *[1e-5] * 5], "weight_contrast": [0.1] * 6}
    (message,) = warnings_of(weak)
    assert message.startswith("The loss term contrast has done next to nothing for 5 epochs") and "1.0e-05" in message
    assert not warnings_of(weak | {"pull_contrast": [1e-5] * 4 + [0.2, 1e-5]})
    assert not warnings_of(weak | {"weight_contrast": [0.0] * 6})  # switched off
    assert not warnings_of({"pull_contrast": [1e-5] * 4})
    assert warnings_of({"pull_contrast": [*[1e-5] * 4, NAN, NAN, 1e-5, NAN]})  # epochs without a look do not count


@pytest.mark.parametrize(
    ("kept", "shown", "expected"),
    [
        ([0.9, 0.0, 0.0], [0.1] * 3, True),
        ([0.9, NAN, NAN], [0.1] * 3, True),  # never predicted, though annotated
        ([0.9, NAN, NAN], [0.0] * 3, False),
        ([0.0, 0.0, 0.1], [0.1] * 3, False),
        ([0.0], [0.1], False),
    ],
)
def test_a_class_that_is_shut_out(kept, shown, expected):
    messages = warnings_of({"kept_2": kept, "share_labeled_2": shown, "kept_0": [0.0] * len(kept)})
    assert [m.startswith("No pseudo-label of class 2") for m in messages] == [True] * expected


def test_a_weight_that_is_held_back():
    shares = {"share_pseudo_1": [0.1], "share_labeled_1": [0.1], "share_pseudo_2": [0.0], "share_labeled_2": [0.1]}
    (message,) = warnings_of({"guard": [0.5, 0.0, 0.001], **shares})
    assert message.startswith("The unlabelled weight has been held back for 2 epochs") and "show class 2." in message
    assert not warnings_of({"guard": [0.0, 0.5, 0.001], **shares}) and not warnings_of({"guard": [0.0], **shares})
    assert not warnings_of({"guard": [0.0, 0.0], **shares}, progress=0.1)


def test_collapsed_contrast_and_zero_terms_and_background():
    assert warnings_of({"contrast_collapse": [-0.3, 0.001]})[0].startswith("The contrast is within 0.5%")
    assert not warnings_of({"contrast_collapse": [0.001, -0.3]})
    (message,) = warnings_of({"loss_consistency": [0.3, 0.0]})
    assert message == "The loss term consistency was exactly zero in every step of this epoch."
    assert not warnings_of({"loss_consistency": [0.0], "weight_consistency": [0.0]})
    poor = {"foreground": [0.001], "labeled_foreground": [0.2]}
    assert "collapsed to background" in warnings_of(poor)[0] and not warnings_of(poor, progress=0.1)


def test_pseudo_labels_that_run_away_to_foreground():
    """An untrained network sees foreground everywhere, so that the first epochs do not count."""
    growing = {"foreground": [0.5, 0.5, 0.19, 0.4], "labeled_foreground": [0.09] * 4}
    (message,) = warnings_of(growing)
    assert message.startswith("The pseudo-labels show 4.4 times the foreground of the labels: 0.4 of the unlabelled")
    assert not warnings_of(growing, progress=0.1)
    assert not warnings_of({name: values[:3] for name, values in growing.items()})
    assert not warnings_of(growing | {"foreground": [0.5, 0.5, 0.12, 0.4]})
    assert not warnings_of(growing | {"labeled_foreground": [NAN] * 4})
