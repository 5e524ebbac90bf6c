from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nnunet_ssl.console import find_command
from nnunet_ssl.errors import SemiSupervisedError


def test_commands_come_from_the_environment_of_this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = Path(find_command("nnUNetv2_train"))
    assert found.parent == Path(sys.executable).parent
    with pytest.raises(SemiSupervisedError, match="nnUNetv2_nonsense is not installed"):
        find_command("nnUNetv2_nonsense")
