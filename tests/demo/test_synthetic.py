"""The synthetic dataset: plausible, varied, the same for the same seed, and in nnU-Net's format."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_ssl.demo.anatomy import ORGANS, Tissue, draw_patient
from nnunet_ssl.demo.appearance import draw_image
from nnunet_ssl.demo.synthetic import Case, Sizes, draw_case, write_dataset

NAME = "Dataset999_SemiSupervisedDemo"


@pytest.fixture(scope="module")
def population() -> list[Case]:
    return [draw_case(0, number) for number in range(19)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("raw"), NAME, seed=0, sizes=Sizes(3, 4, 2))


def test_a_case_depends_on_seed_and_number_alone() -> None:
    first, again = draw_case(5, 3), draw_case(5, 3)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert first.spacing == again.spacing
    for other in (draw_case(5, 4), draw_case(6, 3)):
        assert other.image.shape != first.image.shape or not np.array_equal(other.labels, first.labels)


def test_every_case_has_every_organ_and_the_liver_is_the_largest(population: list[Case]) -> None:
    counts = np.array([[(c.labels == value).sum() for value in ORGANS.values()] for c in population])
    assert counts.min() >= 10
    assert (counts[:, 0] > 2 * counts[:, 1:].max(axis=1)).all()
    typical = np.median(counts, axis=0)
    assert typical[3] < typical[1:3].min()


def test_images_are_small_finite_and_not_negative(population: list[Case]) -> None:
    for case in population:
        assert case.image.dtype == np.float32
        assert case.labels.dtype == np.uint8
        assert case.image.shape == case.labels.shape
        assert all(22 <= n <= 36 for n in case.image.shape)
        assert np.isfinite(case.image).all()
        assert case.image.min() >= 0


def test_cases_differ_in_spacing_size_contrast_and_gain(population: list[Case]) -> None:
    assert len({c.spacing for c in population}) == len(population)
    assert len({int((c.labels == Tissue.LIVER).sum()) for c in population}) > 15
    liver = np.array([np.median(c.image[c.labels == Tissue.LIVER]) for c in population])
    spleen = np.array([np.median(c.image[c.labels == Tissue.SPLEEN]) for c in population])
    assert liver.max() > 2 * liver.min()  # gain
    assert np.ptp(spleen / liver) > 0.2  # the contrast between the organs is not the same everywhere


def test_the_small_organ_looks_like_its_neighbour() -> None:
    """Pancreas and duodenum overlap in brightness: voxels of one lie within the spread of the other."""
    axes = np.meshgrid(*[np.arange(-70.0, 70.0, 4.0)] * 3, indexing="ij")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        tissue = draw_patient(rng, np.stack(axes[::-1]))
        image = draw_image(rng, tissue)
        pancreas, bowel = image[tissue == Tissue.PANCREAS], image[tissue == Tissue.BOWEL]
        low, high = np.percentile(bowel, (2, 98))
        assert low < np.median(pancreas) < high


def test_labelled_unlabelled_and_test_cases_are_written_where_nnunet_expects_them(dataset: Path) -> None:
    found = {folder.name: sorted(f.name for f in folder.iterdir()) for folder in dataset.iterdir() if folder.is_dir()}
    ids = [f"demo_{number:03d}" for number in range(9)]
    assert found == {
        "imagesTr": [f"{i}_0000.nii.gz" for i in ids[:3]],
        "labelsTr": [f"{i}.nii.gz" for i in ids[:3]],
        "imagesUn": [f"{i}_0000.nii.gz" for i in ids[3:7]],
        "imagesTs": [f"{i}_0000.nii.gz" for i in ids[7:]],
        "labelsTs": [f"{i}.nii.gz" for i in ids[7:]],
    }
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "liver": 1, "spleen": 2, "kidneys": 3, "pancreas": 4}
    assert description["numTraining"] == 3
    assert [p.name for p in dataset.parent.iterdir()] == [NAME]  # nothing half-written is left


def test_the_files_hold_the_drawn_cases(dataset: Path) -> None:
    """Whatever its part of the dataset, case n is patient n of one population."""
    for number, images in ((0, "imagesTr"), (4, "imagesUn"), (8, "imagesTs")):
        case = draw_case(0, number)
        image = sitk.ReadImage(str(dataset / images / f"demo_{number:03d}_0000.nii.gz"))
        assert np.array_equal(sitk.GetArrayFromImage(image), case.image)
        assert image.GetSpacing() == pytest.approx(case.spacing)
    labels = sitk.ReadImage(str(dataset / "labelsTs" / "demo_008.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(labels), draw_case(0, 8).labels)


def test_nnunet_accepts_the_dataset(dataset: Path) -> None:
    verify_dataset_integrity(str(dataset), num_processes=1)


def test_an_existing_dataset_is_not_touched(dataset: Path) -> None:
    with pytest.raises(FileExistsError, match=NAME):
        write_dataset(dataset.parent, NAME)


def test_a_dataset_that_was_left_half_written_is_replaced(tmp_path: Path) -> None:
    leftover = tmp_path / f".{NAME}.partial" / "imagesUn" / "old.nii.gz"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    written = write_dataset(tmp_path, NAME, sizes=Sizes(1, 1, 0))
    assert sorted(f.name for f in written.rglob("*.nii.gz")) == [
        "demo_000.nii.gz",
        "demo_000_0000.nii.gz",
        "demo_001_0000.nii.gz",
    ]
