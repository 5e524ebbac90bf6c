"""Fixtures every test may use: a tiny dataset per recipe, built once, copied for each test."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import blosc2
import pytest
import torch

from nnunet_ssl.data.unlabeled import preprocess_unlabeled
from tests.running import write_split
from tests.tiny import DATASET, Tiny, build

MANY = 60  # tests of a file that take as long together as slow ones

os.environ.setdefault("nnUNet_compile", "f")
torch.set_num_threads(1)
# Some tests fork nnU-Net's pools, whose workers set this number and would end threads that only their parent has.
blosc2.set_nthreads(1)
blosc2.cparams_dflts["nthreads"] = blosc2.dparams_dflts["nthreads"] = 1


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("NNUNET_SSL_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real datasets not found at {folder} (set NNUNET_SSL_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def dataset_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Tiny], Path]:
    """Builds each recipe once per session."""
    built: dict[str, Path] = {}

    def get(tiny: Tiny) -> Path:
        key = repr(tiny)
        if key not in built:
            root = tmp_path_factory.mktemp("tiny")
            build(root / "data", tiny)
            built[key] = root / "data"
        return built[key]

    return get


def point_nnunet_at(root: Path, patch: pytest.MonkeyPatch) -> None:
    """nnU-Net's folders, and no process beside this one."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        patch.setenv(name, str(root / name))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setenv("nnUNet_def_n_proc", "1")


@pytest.fixture
def make_dataset(
    dataset_store: Callable[[Tiny], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """make_dataset(**recipe) -> folder of the preprocessed dataset; the three nnU-Net variables point to the copy.

    ``preprocess=False`` leaves imagesUn unpreprocessed.
    """

    def make(preprocess: bool = True, **recipe) -> Path:
        tiny = Tiny(**recipe)
        root = tmp_path / "nnunet"
        shutil.copytree(dataset_store(tiny), root)
        point_nnunet_at(root, monkeypatch)
        if preprocess and tiny.unlabeled:
            preprocess_unlabeled(DATASET, ["3d_fullres", "2d"], num_processes=1)
        return root / "nnUNet_preprocessed" / DATASET

    return make


@pytest.fixture(scope="session")
def ready_store(dataset_store: Callable[[Tiny], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds each recipe once per session, with its images without labels preprocessed and the split "n2" written."""
    built: dict[str, Path] = {}

    def get(tiny: Tiny) -> Path:
        key = repr(tiny)
        if key not in built:
            root = tmp_path_factory.mktemp("ready") / "data"
            shutil.copytree(dataset_store(tiny), root)
            with pytest.MonkeyPatch.context() as patch:
                point_nnunet_at(root, patch)
                preprocess_unlabeled(DATASET, ["3d_fullres", "2d"], num_processes=1)
            write_split(root / "nnUNet_preprocessed" / DATASET)
            built[key] = root
        return built[key]

    return get


@pytest.fixture
def ready_dataset(
    ready_store: Callable[[Tiny], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """ready_dataset(**recipe) -> folder of a preprocessed dataset that tests share and none may change.

    With the split "n2"; the results of each test are its own.
    """

    def get(**recipe) -> Path:
        root = ready_store(Tiny(**recipe))
        point_nnunet_at(root, monkeypatch)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
        return root / "nnUNet_preprocessed" / DATASET

    return get


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs draw none of the two figures, which take longer than a tiny epoch."""
    from nnunetv2.training.logging.nnunet_logger import MetaLogger

    from nnunet_ssl.training import curves

    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, folder: None)
    monkeypatch.setattr(curves, "draw_png", lambda table, folder: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record",
        action="store_true",
        help="write what tests/trainers/test_golden.py and test_old_checkpoints.py compare with, instead of comparing",
    )


@pytest.fixture
def record(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--record"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow or many tests first, so that no worker is left alone with one of them at the end."""
    tests = Counter(item.path for item in items)
    long = {item.path for item in items if item.get_closest_marker("slow") or tests[item.path] >= MANY}
    items.sort(key=lambda item: item.path not in long)
