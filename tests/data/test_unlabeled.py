"""`preprocess_unlabeled` on a tiny dataset with hand-written plans: what comes out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from batchgenerators.utilities.file_and_folder_operations import load_json, load_pickle
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from skimage import io

from nnunet_ssl import cli
from nnunet_ssl.data.unlabeled import preprocess_unlabeled, unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.data.unlabeled_store import SCRATCH
from tests.data.unlabeled_helpers import (
    CASES,
    IGNORE,
    edit,
    folder_of,
    image_in,
    images_of,
    preprocess,
    snapshot,
    volume,
)
from tests.tiny import DATASET, write_image


def test_names():
    assert unlabeled_folder("/p/Dataset001_A/nnUNetPlans_2d") == "/p/Dataset001_A/nnUNetPlans_2d__unlabeled"
    assert unlabeled_folder("/p/Dataset001_A/nnUNetPlans_2d/") == "/p/Dataset001_A/nnUNetPlans_2d__unlabeled"


def test_every_configuration_gets_the_same_cases(make_dataset):
    dataset = make_dataset(preprocess=False, channels=2)
    labeled = snapshot(dataset / "nnUNetPlans_3d_fullres")
    folders = preprocess(("3d_fullres", "2d", "3d_cascade_fullres"))
    assert folders == [str(folder_of(dataset)), str(folder_of(dataset, "2d"))]
    for folder in folders:
        assert unlabeled_identifiers(folder) == CASES
        assert infer_dataset_class(folder) is nnUNetDatasetBlosc2
        assert not os.path.exists(os.path.join(folder, SCRATCH))
    assert snapshot(dataset / "nnUNetPlans_3d_fullres") == labeled, "the labelled folder must stay as it is"


def test_same_data_as_a_labelled_case(make_dataset):
    dataset = make_dataset(preprocess=False, channels=2, spacing=(2.0, 1.0, 0.7), mask_normalization=True)
    for channel in range(2):
        shutil.copy(
            images_of(dataset, "imagesTr") / f"tiny_003_{channel:04d}.nii.gz",
            images_of(dataset) / f"twin_{channel:04d}.nii.gz",
        )
    preprocess(("3d_fullres", "2d"))
    for configuration in ("3d_fullres", "2d"):
        labeled = nnUNetDatasetBlosc2(str(dataset / f"nnUNetPlans_{configuration}"))
        unlabeled = nnUNetDatasetBlosc2(str(folder_of(dataset, configuration)))
        image, _, _, properties = labeled.load_case("tiny_003")
        twin, seg, _, twin_properties = unlabeled.load_case("twin")
        assert np.array_equal(image[:], twin[:]) and image.dtype == twin.dtype
        assert set(np.unique(seg[:])) <= {0, -1} and seg.shape == (1, *twin.shape[1:])
        assert twin_properties["class_locations"] == {}
        assert properties.keys() | {"nnunet_ssl"} == twin_properties.keys()
        for key in ("spacing", "shape_before_cropping", "bbox_used_for_cropping"):
            assert np.array_equal(properties[key], twin_properties[key])


@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.filterwarnings("ignore:Warning! No annotated pixels")
def test_nnunets_own_loader_draws_batches(make_dataset, configuration, ignore):
    recipe = {"labels": IGNORE} if ignore else {}
    dataset = make_dataset(preprocess=False, **recipe)
    preprocess((configuration,))
    patch = PlansManager(str(dataset / "nnUNetPlans.json")).get_configuration(configuration).patch_size
    labels = PlansManager(str(dataset / "nnUNetPlans.json")).get_label_manager(load_json(str(dataset / "dataset.json")))
    loader = nnUNetDataLoader(nnUNetDatasetBlosc2(str(folder_of(dataset, configuration))), 4, patch, patch, labels, 0.0)
    batch = next(loader)
    assert batch["data"].shape == (4, 1, *patch) and batch["data"].std() > 0
    assert set(batch["keys"]) <= set(CASES)


def test_ignore_label_has_its_empty_key(make_dataset):
    dataset = make_dataset(preprocess=False, labels=IGNORE)
    preprocess()
    properties = load_pickle(str(folder_of(dataset) / "extra_000.pkl"))
    assert properties["class_locations"] == {(-1, 0, 1, 2): []}


def test_default_is_what_nnunet_preprocessed(make_dataset, capsys):
    dataset = make_dataset(preprocess=False)
    assert preprocess(None) == [str(folder_of(dataset, "2d")), str(folder_of(dataset))]
    printed = capsys.readouterr().out
    assert printed.startswith("Semi-supervised") and "skipped: 3d_lowres" in printed


def natural(path: Path, array: np.ndarray) -> None:
    io.imsave(path, (array[0] * 10).astype(np.uint8), check_contrast=False)


def tiff(path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(path, array)
    path.with_name("case.json").write_text(json.dumps({"spacing": [2.0, 1.0, 1.0]}))


def itk(path: Path, array: np.ndarray) -> None:
    write_image(array, path, (2.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("ending", "reader", "write", "configuration"),
    [
        *[(ending, "SimpleITKIO", itk, "3d_fullres") for ending in (".nii.gz", ".nrrd", ".mha", ".gipl")],
        *[(ending, "NibabelIO", itk, "3d_fullres") for ending in (".nii.gz", ".nii")],
        *[(ending, "Tiff3DIO", tiff, "3d_fullres") for ending in (".tif", ".tiff")],
        *[(ending, "NaturalImage2DIO", natural, "2d") for ending in (".png", ".bmp", ".tif")],
    ],
)
def test_file_endings(make_dataset, ending, reader, write, configuration):
    dataset = make_dataset(preprocess=False, unlabeled=0)
    dataset_json = edit(dataset / "dataset.json", file_ending=ending)
    manager = PlansManager(edit(dataset / "nnUNetPlans.json", image_reader_writer=reader))
    file = images_of(dataset) / f"case_0000{ending}"
    file.parent.mkdir()
    write(file, volume(3))
    preprocess((configuration,))
    plans = manager.get_configuration(configuration)
    expected, _, properties = plans.preprocessor_class(verbose=False).run_case(
        [str(file)], None, manager, plans, dataset_json
    )
    assert unlabeled_identifiers(str(folder_of(dataset, configuration))) == ["case"]
    assert np.array_equal(image_in(folder_of(dataset, configuration), "case"), expected)
    assert expected.shape[1] == (1 if configuration == "2d" else 40 if properties["spacing"][0] == 2 else 20)


def test_a_changed_tiff_sidecar_counts(make_dataset):
    dataset = make_dataset(preprocess=False, unlabeled=0)
    edit(dataset / "dataset.json", file_ending=".tif")
    edit(dataset / "nnUNetPlans.json", image_reader_writer="Tiff3DIO")
    images_of(dataset).mkdir()
    tiff(images_of(dataset) / "case_0000.tif", volume(3))
    preprocess()
    (images_of(dataset) / "case.json").write_text(json.dumps({"spacing": [3.0, 1.0, 1.0]}))
    preprocess()
    assert image_in(folder_of(dataset), "case").shape == (1, 60, 22, 18)


def test_unusual_spacing_and_size(make_dataset, capsys):
    dataset = make_dataset(preprocess=False)
    write_image(volume(1), images_of(dataset) / "coarse_0000.nii.gz", (3.0, 1.0, 1.0))
    preprocess()
    warning = capsys.readouterr().err.split("Warning: ")[1]
    assert "coarse: spacing 3 x 1 x 1 mm (labelled cases 1 x 1 x 1), size 60 x 22 x 18 mm" in warning
    assert "extra_000" not in warning


def test_command(make_dataset, capsys):
    dataset = make_dataset(preprocess=False)
    assert cli.main(["preprocess", "-d", "901", "-c", "3d_fullres", "2d", "-np", "1"]) == 0
    assert unlabeled_identifiers(str(folder_of(dataset, "2d"))) == CASES
    capsys.readouterr()
    assert cli.main(["preprocess", "-d", "901", "-c", "3d_lowres", "-np", "1"]) == 1
    assert capsys.readouterr().err.startswith("nnunet_ssl preprocess: ")
    assert cli.main(["preprocess", "-d", DATASET, "-np", "0"]) == 1


def test_two_processes(make_dataset):
    dataset = make_dataset(preprocess=False)
    preprocess_unlabeled(901, ["3d_fullres"], num_processes=2)
    several = {case: image_in(folder_of(dataset), case) for case in CASES}
    shutil.rmtree(folder_of(dataset))
    preprocess()
    assert all(np.array_equal(image_in(folder_of(dataset), case), several[case]) for case in CASES)
