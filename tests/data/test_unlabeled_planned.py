"""Images without labels beside a dataset that nnU-Net planned and preprocessed itself: 3D with two channels, 2D RGB."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from skimage import io

from nnunet_ssl.data.unlabeled import preprocess_unlabeled, unlabeled_identifiers
from tests.integration.command_server import FEW_VOXELS
from tests.tiny import Tiny, case_arrays, write_image, write_images

pytestmark = pytest.mark.slow
LABELS = {"background": 0, "ball": 1, "box": 2}


def write_3d(folder: Path) -> dict:
    """Spacing and field of view differ from case to case, so that images are cropped and resampled."""
    tiny = Tiny(channels=2)
    for index in range(7):
        image, label = case_arrays(tiny, index)
        image[:, :, : index % 3] = 0
        spacing = (1.0, 1.0 + 0.1 * (index % 4), 1.2)
        part, case = ("imagesTr", f"case_{index}") if index < 5 else ("imagesUn", f"extra_{index}")
        write_images(image, folder / part, case, spacing)
        if index < 5:
            write_image(label, folder / "labelsTr" / f"{case}.nii.gz", spacing)
    for channel in range(2):
        name = "{}_{:04d}.nii.gz"
        shutil.copy(
            folder / "imagesTr" / name.format("case_2", channel), folder / "imagesUn" / name.format("twin", channel)
        )
    return {"channel_names": {"0": "T1", "1": "CT"}, "file_ending": ".nii.gz"}


def write_2d(folder: Path) -> dict:
    for part in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / part).mkdir(parents=True)
    for index in range(7):
        image, label = case_arrays(Tiny(shape=(2, 40, 48), channels=3), index)
        colors = np.clip(image[:, 0] * 25, 0, 255).astype(np.uint8).transpose(1, 2, 0)
        part, case = ("imagesTr", f"case_{index}") if index < 5 else ("imagesUn", f"extra_{index}")
        io.imsave(folder / part / f"{case}_0000.png", colors, check_contrast=False)
        if index < 5:
            io.imsave(folder / "labelsTr" / f"{case}.png", label[1], check_contrast=False)
    shutil.copy(folder / "imagesTr" / "case_2_0000.png", folder / "imagesUn" / "twin_0000.png")
    return {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}


@pytest.fixture(
    scope="module", params=[("Dataset902_Volumes", write_3d, "3d_fullres"), ("Dataset903_Photos", write_2d, "2d")]
)
def planned(request, tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """(preprocessed dataset, configuration)"""
    name, write, configuration = request.param
    root = tmp_path_factory.mktemp("planned")
    folder = root / "nnUNet_raw" / name
    save_json({**write(folder), "labels": LABELS, "numTraining": 5}, str(folder / "dataset.json"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (root / variable).mkdir(exist_ok=True)
            patch.setenv(variable, str(root / variable))
        # a spawned worker would import PyTorch and nnU-Net anew for each of the four pools
        patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
        voxels = "num_foreground_voxels_for_intensitystats"
        patch.setattr(DatasetFingerprintExtractor, voxels, FEW_VOXELS, raising=False)
        number = int(name[7:10])
        extract_fingerprints([number], num_processes=1)
        plan_experiments([number])
        preprocess([number], configurations=[configuration], num_processes=[1])
        preprocess_unlabeled(number, num_processes=1)
        yield root / "nnUNet_preprocessed" / name, configuration


def test_nnunet_preprocesses_the_labelled_twin_to_the_same_array(planned):
    dataset, configuration = planned
    folder = dataset / f"nnUNetPlans_{configuration}"
    unlabeled = nnUNetDatasetBlosc2(f"{folder}__unlabeled")
    assert unlabeled.identifiers == ["extra_5", "extra_6", "twin"] == unlabeled_identifiers(f"{folder}__unlabeled")
    image, _, _, properties = nnUNetDatasetBlosc2(str(folder)).load_case("case_2")
    twin, _, _, twin_properties = unlabeled.load_case("twin")
    assert np.array_equal(image[:], twin[:])
    assert (image.dtype, image.chunks, image.blocks) == (twin.dtype, twin.chunks, twin.blocks)
    assert twin_properties.keys() - properties.keys() == {"nnunet_ssl"}


def test_nnunet_sees_its_own_cases_only(planned):
    dataset, configuration = planned
    labeled = nnUNetDatasetBlosc2.get_identifiers(str(dataset / f"nnUNetPlans_{configuration}"))
    assert sorted(labeled) == [f"case_{index}" for index in range(5)]


def test_nnunets_loader_draws_from_the_result(planned):
    dataset, configuration = planned
    manager = PlansManager(str(dataset / "nnUNetPlans.json"))
    plans = manager.get_configuration(configuration)
    labels = manager.get_label_manager(load_json(str(dataset / "dataset.json")))
    data = nnUNetDatasetBlosc2(str(dataset / f"{plans.data_identifier}__unlabeled"))
    loader = nnUNetDataLoader(data, 2, plans.patch_size, plans.patch_size, labels, 0.33)
    batch = next(loader)["data"]
    channels = load_json(str(dataset / "dataset.json"))["channel_names"]
    assert batch.shape == (2, len(channels), *plans.patch_size) and batch.isfinite().all() and batch.std() > 0
