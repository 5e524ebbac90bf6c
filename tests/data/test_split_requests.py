"""The command that makes splits of given names."""

from __future__ import annotations

import pytest

from nnunet_ssl.data.split_requests import splits_command


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ([], "--fractions 0.1"),
        (["l2.5", "n6", "l10"], "--fractions 0.025 0.1 --counts 6"),
        (["l100", "n2"], "--fractions 1 --counts 2"),
        (["l150", "l0", "n0", "n06", "own"], "--labeled-from FILE (with l150, l0, n0, n06, own)"),
    ],
)
def test_splits_command(names, options):
    assert splits_command(4, names) == f"nnunet_ssl splits -d 4 {options}"
