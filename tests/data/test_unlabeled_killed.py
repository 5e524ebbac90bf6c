"""SIGKILL at every step of writing a case, and in the middle of a run with two processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_ssl.data.unlabeled import unlabeled_identifiers
from nnunet_ssl.data.unlabeled_store import SCRATCH
from tests.data.unlabeled_helpers import CASES, folder_of, image_in, images_of, preprocess, snapshot, volume
from tests.tiny import DATASET, write_image

pytestmark = pytest.mark.slow

# Forks one child per step; the child starts from the same folder and kills itself at that step. Nothing but imports
# happens in the parent, so that no thread is lost in the fork.
KILLED_AT_STEP = """
import os, shutil, signal, sys
from nnunet_ssl.data import unlabeled_store
from nnunet_ssl.data.unlabeled import preprocess_unlabeled

folder, keep, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = os.path.join(keep, "start")
shutil.copytree(folder, start)
for step in range(steps):
    shutil.rmtree(folder)
    shutil.copytree(start, folder)
    child = os.fork()
    if child == 0:
        count = 0
        def killed(function):
            def call(*args):
                global count
                if count == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return function(*args)
            return call
        os.replace, os.remove, os.mkdir = killed(os.replace), killed(os.remove), killed(os.mkdir)
        preprocess_unlabeled("DATASET", ["3d_fullres"], num_processes=1, overwrite=len(os.listdir(start)) > 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    shutil.copytree(folder, os.path.join(keep, str(step)))
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


@pytest.mark.parametrize(
    ("first_run", "steps"),
    [
        (True, 2 + 2 * 4),  # make and lock the scratch folder; for two cases make the case's own and move three files
        (False, 2 + 2 * 5),  # and remove the old file that makes the case visible
    ],
)
def test_killed_at_every_step(make_dataset, tmp_path, first_run, steps):
    dataset = make_dataset(preprocess=False)
    preprocess()
    folder = folder_of(dataset)
    whole = {case: contents(folder, case) for case in CASES}
    if first_run:
        shutil.rmtree(folder)
        folder.mkdir()
    command = [sys.executable, "-c", KILLED_AT_STEP.replace("DATASET", DATASET), str(folder), str(tmp_path), str(steps)]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    seen = []
    for step in range(steps):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / str(step), folder)
        visible = unlabeled_identifiers(str(folder))
        seen.append(len(visible))
        for case in visible:
            assert_same(contents(folder, case), whole[case])
        preprocess()
        assert unlabeled_identifiers(str(folder)) == CASES
        for case in CASES:
            assert_same(contents(folder, case), whole[case])
        assert len(list(folder.iterdir())) == 3 * len(CASES), "nothing else is left"
    # an old case is withdrawn while its files are replaced, and then comes back
    assert set(seen) == ({0, 1} if first_run else {2, 3})


def contents(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray, dict]:
    image, segmentation, _, properties = nnUNetDatasetBlosc2(str(folder)).load_case(case)
    return image[:], segmentation[:], properties["nnunet_ssl"]


def assert_same(found: tuple, expected: tuple) -> None:
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1]) and found[2] == expected[2]


def test_killed_with_two_processes(make_dataset):
    dataset = make_dataset(preprocess=False)
    large = np.kron(volume(1), np.ones((5, 5, 5), np.float32))
    write_image(large, images_of(dataset) / "case_00_0000.nii.gz", (1.0, 1.0, 1.0))
    for index in range(1, 12):
        shutil.copy(images_of(dataset) / "case_00_0000.nii.gz", images_of(dataset) / f"case_{index:02d}_0000.nii.gz")
    everything = sorted([*CASES, *(f"case_{index:02d}" for index in range(12))])
    command = [sys.executable, "-m", "nnunet_ssl.cli", "preprocess", "-d", DATASET, "-c", "3d_fullres", "-np", "2"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: len(unlabeled_identifiers(str(folder_of(dataset)))) >= 2)
        run.send_signal(signal.SIGKILL)
    wait_for(lambda: is_quiet(folder_of(dataset)))
    finished = unlabeled_identifiers(str(folder_of(dataset)))
    assert 2 <= len(finished) < len(everything)
    before = snapshot(folder_of(dataset))
    for case in finished:
        assert image_in(folder_of(dataset), case).std() > 0
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    assert unlabeled_identifiers(str(folder_of(dataset))) == everything
    after = snapshot(folder_of(dataset))
    assert all(after[f"{case}.b2nd"] == before[f"{case}.b2nd"] for case in finished), "finished cases are kept"
    assert not (folder_of(dataset) / SCRATCH).exists()


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_quiet(folder: Path) -> bool:
    """Nothing changes any more: the workers ended with their parent."""
    first = sorted(str(p) for p in folder.rglob("*"))
    time.sleep(1)
    return first == sorted(str(p) for p in folder.rglob("*"))
