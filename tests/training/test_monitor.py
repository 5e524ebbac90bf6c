from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from nnunet_ssl.training.curves import draw_png, history, register, write_csv
from nnunet_ssl.training.monitor import Monitor


def test_means_are_weighted_and_start_afresh():
    monitor = Monitor(torch.device("cpu"))
    monitor.add("a", torch.tensor(2.0, requires_grad=True))
    monitor.add("a", 4.0)
    monitor.add("b", torch.tensor(1.0), torch.tensor(3))
    monitor.add("b", torch.tensor(5.0), torch.tensor(1))
    monitor.add("never", torch.tensor(0.0), torch.tensor(0))
    means = monitor.epoch_means()
    assert means["a"] == 3.0 and means["b"] == 2.0 and math.isnan(means["never"])
    assert monitor.epoch_means() == {}


def test_register_fills_missed_epochs():
    logging = {"train_losses": [1.0, 2.0], "ssl/old": [0.1, 0.2]}
    register(logging, "ssl/new", 2)
    register(logging, "ssl/old", 2)
    assert len(logging["ssl/new"]) == 2 and all(map(math.isnan, logging["ssl/new"]))
    assert logging["ssl/old"] == [0.1, 0.2]


def test_csv_and_png(tmp_path):
    logging = {"train_losses": [1.0], "ssl/loss_a": [1.0, 0.5], "ssl/weight_a": [0.1, 0.2], "ssl/coverage": [0.0, 1.0]}
    table = history(logging)
    write_csv(table, str(tmp_path))
    draw_png(table, str(tmp_path))
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "semi_supervised.csv"), table)
    assert list(table) == ["epoch", "loss_a", "weight_a", "coverage"]
    assert (tmp_path / "progress_semi_supervised.png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["progress_semi_supervised.png", "semi_supervised.csv"]


def test_nothing_logged_draws_nothing(tmp_path):
    draw_png(history({"train_losses": [1.0]}), str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [0.25, torch.tensor(0.25)])
def test_no_synchronisation_before_the_end_of_the_epoch(value, monkeypatch):
    monitor = Monitor(torch.device("cpu"))
    with monkeypatch.context() as patch:
        for name in ("item", "cpu", "tolist", "numpy"):
            patch.setattr(torch.Tensor, name, lambda *a: pytest.fail("synchronised"))
        monitor.add("a", value)
    assert monitor.epoch_means() == {"a": 0.25}
