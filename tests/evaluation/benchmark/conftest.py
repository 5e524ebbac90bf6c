"""A benchmark on a tiny dataset, with the training runs played by a script."""

from __future__ import annotations

import pytest

from tests.evaluation.benchmark.fakes import Place, install, make_place


@pytest.fixture
def place(make_dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Place:
    """Six labelled cases, the splits n2 and n3 with two folds, fake commands in this process."""
    place = make_place(make_dataset(unlabeled=0))
    install(place.bin, monkeypatch.setattr)
    capsys.readouterr()
    return place
