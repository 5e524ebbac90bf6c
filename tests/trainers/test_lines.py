"""A method is told in one file that can be read at once: what is more than that belongs beside it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

MOST = 120  # lines
METHODS = ("unimatch", "fixmatch", "bcp", "admt", "cps", "dhc", "uamt", "urpc", "mcnet", "dtc", "ssnet")


@pytest.mark.parametrize("method", METHODS)
def test_a_trainer_has_few_lines(method):
    module = import_module(f"nnunet_ssl.trainers.{method}.trainer")
    assert len(Path(str(module.__file__)).read_text().splitlines()) <= MOST
