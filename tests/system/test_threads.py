"""The threads that PyTorch takes on a CPU."""

import pytest
import torch

from nnunet_ssl.system.threads import GRANTED, keep_to_granted_threads


@pytest.mark.parametrize(("granted", "threads"), [("1", 1), ("2,1", 2), (None, 3), ("", 3), ("many", 3), ("0", 3)])
def test_what_is_granted_is_taken(monkeypatch, granted, threads):
    if granted is None:
        monkeypatch.delenv(GRANTED, raising=False)
    else:
        monkeypatch.setenv(GRANTED, granted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)  # as nnUNetv2_train has done on a machine of three cores
        keep_to_granted_threads()
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
