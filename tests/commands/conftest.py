"""A dataset with everything that `nnunet_ssl doctor` looks at."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ssl.cli import main


@pytest.fixture
def split_dataset(make_dataset, capsys) -> Path:
    """Six labelled cases, three images without labels in both configurations, a split and plans that use it."""
    base = make_dataset()
    assert main(["splits", "-d", "901", "--counts", "2"]) == 0
    assert main(["plans", "-d", "901", "--split", "n2", "--training", "num_epochs=3"]) == 0
    capsys.readouterr()
    return base
