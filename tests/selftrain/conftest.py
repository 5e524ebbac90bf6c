"""A self-training on a tiny dataset, with nnU-Net's commands played by a script."""

from __future__ import annotations

import pytest

from tests.selftrain.fakes import Place, install, make_place


@pytest.fixture
def place(make_dataset, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two labelled, three withheld and one validation case, three images in imagesUn, fake commands."""
    place = make_place(make_dataset(preprocess=False))
    install(monkeypatch.setattr)
    return place
