"""Training with background workers under every start method that Python may use by default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing
import sys
from pathlib import Path

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    import torch
    torch.set_num_threads(1)
    from nnunet_ssl.trainers import find_trainer
    from tests.running import make_trainer

    trainer = make_trainer(Path(sys.argv[1]), find_trainer("nnUNetTrainerMeanTeacher_1epochs"))
    trainer.run_training()
    print("EPOCHS", trainer.current_epoch)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_of_any_start_method_train(make_dataset, method):
    dataset = make_dataset()
    script = dataset.parent / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(dataset), method],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "EPOCHS 1" in done.stdout
