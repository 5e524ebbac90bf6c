"""What stops a self-training is told before any work, all of it at once."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest

from nnunet_ssl.data.splits import Fold
from nnunet_ssl.errors import SemiSupervisedError
from nnunet_ssl.planning.plans_copy import write_plans_copy
from nnunet_ssl.selftrain import disk
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import SelfTraining
from tests.running import CASES, write_split
from tests.selftrain.fakes import WORDS, Place, make_place, run
from tests.tiny import DATASET, Tiny, case_arrays, write_images

Usage = namedtuple("Usage", "total used free")


def refused(place: Place, *words: str) -> list[str]:
    """The problems that the command names; nothing may have been started or written then."""
    before = sorted(place.root.rglob("*"))
    with pytest.raises(SemiSupervisedError) as caught:
        run(place, *words)
    first, *problems, last = str(caught.value).splitlines()
    assert (first, last) == ("The self-training cannot begin:", "Nothing was started or written.")
    assert not place.calls()
    assert sorted(place.root.rglob("*")) == before
    return [problem.removeprefix("  - ") for problem in problems]


def test_options_all_at_once(place: Place):
    problems = refused(
        place,
        *WORDS,
        *("--n-teachers", "1", "--threshold", "1.5", "--min-cases", "0", "--labeled-share", "1", "--from", "previous"),
        *("--student-plans", "other", "--voxel-confidence", "-1", "-f", "3", "--training", "epochs=3"),
    )
    expected = (
        "--min-cases 0: at least 1",
        "--threshold 1.5: between 0 and 1",
        "--voxel-confidence -1: between 0 and 1",
        "--labeled-share 1: at least 0 and below 1",
        "--select agreement compares teachers with each other -> at least --n-teachers 2",
        "--from previous: weights of a network of -p do not fit one of --student-plans -> --from scratch",
    )
    assert set(expected) <= set(problems)
    assert any("other.json does not exist" in problem for problem in problems)
    assert any('split "n2" has no fold 3' in problem for problem in problems)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--select", "stability", "--rounds", "1"), "--select stability compares two rounds -> at least --rounds 2"),
        (("--keep-fraction", "0"), "--keep-fraction 0: above 0 and at most 1"),
        (("--rounds", "-1"), "--rounds -1: at least 0"),
        (("--teachers", "folds", "--n-teachers", "1", "--select", "none", "-f", "1"), "-f 1 is none of the 1 folds"),
        (
            ("--teachers", "checkpoints", "--n-teachers", "3"),
            "--teachers checkpoints: 2 epochs have no 3 checkpoints from 60 % on",
        ),
        (
            ("--teachers", "checkpoints", "--mode", "pretrain", "--training", "num_epochs=5"),
            "--teachers checkpoints: 1 epochs have no 2 checkpoints from 60 % on",
        ),
        (("--training", "epochs=3"), 'unknown key "epochs" in "training"'),
        (("-c", "3d_cascade_fullres"), "3d_cascade_fullres"),
        (("--split", "l10"), "has no split l10"),
        (("-d", "77"), "There is no dataset 77"),
    ],
)
def test_one_at_a_time(place: Place, words: tuple[str, ...], problem: str):
    assert any(problem in found for found in refused(place, *WORDS, *words))


def test_a_cascade_is_refused(place: Place):
    plans = json.loads((place.base / "nnUNetPlans.json").read_text())
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    (place.base / "nnUNetPlans.json").write_text(json.dumps(plans))
    (problem,) = refused(place, *WORDS)
    assert "3d_fullres: no configuration of nnUNetPlans that semi-supervised trainers support" in problem


def test_no_image_without_label(place: Place):
    shutil.rmtree(place.raw / "imagesUn")
    (place.base / "splits_final.json").write_text(json.dumps([{"train": CASES[:4], "val": CASES[4:]}]))
    without_split = [word for word in WORDS if word not in ("--split", "n2")]
    (problem,) = refused(place, *without_split)
    assert problem.startswith("there is no image without label: ") and "no split withholds labels" in problem


def test_images_under_wrong_names_and_none_at_all(place: Place, capsys):
    """Else the withheld cases alone would be the pool, and nobody would know; without images they are."""
    images = place.raw / "imagesUn"
    for image in images.iterdir():
        image.rename(images / image.name.replace("_0000", ""))
    (problem,) = refused(place, *WORDS)
    assert "extra_000.nii.gz: the channel is missing in the name" in problem
    for image in images.iterdir():
        image.unlink()
    (images / "README.txt").touch()
    assert run(place, *WORDS, "--rounds", "1", "--write", "sh") == 0
    assert sorted(place.settled().pool) == CASES[2:5]


def test_test_images_in_the_pool_by_name_and_by_content(place: Place, capsys):
    tests = place.raw / "imagesTs"
    write_images(case_arrays(Tiny(), 50)[0], tests, "extra_001", (1.0, 1.0, 1.0))  # the same name
    shutil.copy(place.raw / "imagesUn" / "extra_002_0000.nii.gz", tests / "test_9_0000.nii.gz")  # the same image
    problems = refused(place, *WORDS)
    assert problems[0].startswith("test images are in the pool: extra_001 -> remove them from imagesUn")
    assert problems[1].startswith("extra_002 of the pool is the same image as") and len(problems) == 2
    assert run(place, *WORDS, "--select", "none", "--rounds", "1", "--transductive") == 0
    stored = json.loads((place.out / "selftrain.json").read_text())
    assert stored["warnings"] == ["Transductive: test images may be among those without label, as --transductive "
                                  "allows."]  # fmt: skip


def test_a_labelled_image_in_the_pool(place: Place):
    """Under another name: of validation, it would judge a student that has seen it; of training, teachers know it."""
    images = place.raw / "imagesUn"
    for case, name in (("tiny_005", "of_val"), ("tiny_001", "of_train"), ("tiny_000", "tiny_000")):
        shutil.copy(place.raw / "imagesTr" / f"{case}_0000.nii.gz", images / f"{name}_0000.nii.gz")
    shutil.copy(place.raw / "imagesTr" / "tiny_003_0000.nii.gz", images / "of_withheld_0000.nii.gz")
    problems = refused(place, *WORDS)
    assert problems[0] == f"tiny_000 of {images} is also a case of imagesTr"
    assert [problem.split(" of the pool is the same image as the labelled case ")[0] for problem in problems[1:]] == [
        "of_train", "of_val"
    ]  # fmt: skip


def test_an_image_with_more_channels_than_the_others(place: Place):
    images = place.raw / "imagesUn"
    shutil.copy(images / "extra_000_0000.nii.gz", images / "extra_000_0001.nii.gz")
    (problem,) = refused(place, *WORDS)
    assert problem.startswith("extra_000: wrong number of channels: 2 in 2 file(s), needed 1")


def test_a_single_image_is_a_pool(place: Place, capsys):
    for name in ("extra_001_0000.nii.gz", "extra_002_0000.nii.gz"):
        (place.raw / "imagesUn" / name).unlink()
    write_split(place.base, Fold(labeled=CASES[:5], unlabeled=[], val=CASES[5:]))
    assert run(place, *WORDS, "--rounds", "1", "--keep-fraction", "0.1") == 0
    content = json.loads((place.out / "round_1" / "selection.json").read_text())
    assert [(entry["case"], entry["kept"]) for entry in content["cases"]] == [("extra_000", True)]


def test_the_folder_of_another_run(place: Place, capsys):
    """What lies there is somebody's work of days."""
    assert run(place, *WORDS, "--rounds", "1", "--write", "sh") == 0
    (problem,) = refused(place, *WORDS, "-c", "2d")
    assert problem == f"{place.out} holds the self-training of {DATASET}, 3d_fullres -> give another folder, -o"
    (problem,) = refused(place, *WORDS, "--dataset-id", "950")
    assert problem.startswith("--dataset-id 950: this run has begun with Dataset902_Tiny_selftrain_1")
    assert run(place, *WORDS, "--rounds", "1", "--dataset-id", "902", "--write", "sh") == 0


def test_labels_that_only_the_preprocessed_data_have(place: Place):
    """Students read them in nnUNet_raw, after days of training."""
    for case in ("tiny_001", "tiny_003"):  # the latter is withheld
        (place.raw / "labelsTr" / f"{case}.nii.gz").unlink()
    (problem,) = refused(place, *WORDS)
    assert problem == f"{place.raw} lacks the labels of tiny_001, which students read there"
    shutil.rmtree(place.raw / "imagesTr")
    (problem,) = refused(place, *WORDS)
    assert problem.startswith(f"{place.raw} lacks the images of tiny_000, tiny_001")


def test_without_nnunet_results(place: Place, monkeypatch, capsys):
    (place.root / "nnUNet_results").rmdir()
    assert run(place, *WORDS, "--rounds", "1", "--write", "sh") == 0  # nnU-Net makes the folder
    monkeypatch.delenv("nnUNet_results")
    (problem,) = refused(place, *WORDS)
    assert problem.startswith("the environment variable nnUNet_results is not set")


def test_images_that_cannot_be_read(place: Place):
    (place.raw / "imagesUn" / "extra_000_0000.nii.gz").write_bytes(b"no image")
    (place.raw / "imagesTr" / "tiny_003_0000.nii.gz").write_bytes(b"")
    problems = refused(place, *WORDS)
    assert len(problems) == 2
    assert problems[0].startswith("tiny_003") and problems[1].startswith("extra_000")


def test_regions(make_dataset, monkeypatch):
    labels = {"background": 0, "whole": (1, 2), "core": 2}
    place = make_place(make_dataset(preprocess=False, labels=labels, regions_class_order=(1, 2)))
    problems = refused(place, *WORDS, "--voxels", "ignore", "--select", "entropy")
    assert [problem.split(":")[0] for problem in problems] == ["--voxels ignore", "--select entropy"]


def test_an_id_that_is_taken(place: Place, capsys):
    (place.root / "nnUNet_results" / "Dataset950_Other").mkdir()
    (problem,) = refused(place, *WORDS, "--dataset-id", "949")
    assert problem == "dataset id 950 is taken by Dataset950_Other -> give another --dataset-id, or none"
    assert run(place, *WORDS, "--select", "none", "--rounds", "2") == 0
    stored = json.loads((place.out / "selftrain.json").read_text())["settings"]["datasets"]
    assert stored == ["Dataset902_Tiny_selftrain_1", "Dataset903_Tiny_selftrain_2"]  # 901 is the labelled one
    assert run(place, *WORDS, "--select", "none", "--rounds", "3", "--write", "sh") == 0  # its own ids are its own
    stored = json.loads((place.out / "selftrain.json").read_text())["settings"]["datasets"]
    assert stored[2] == "Dataset904_Tiny_selftrain_3"
    for rounds in ("1", "0", "3"):  # a round that is not asked for now keeps its name, and with it its trainings
        assert run(place, *WORDS, "--select", "none", "--rounds", rounds, "--write", "sh") == 0
        assert json.loads((place.out / "selftrain.json").read_text())["settings"]["datasets"] == stored


def test_too_little_disk_is_told_with_the_estimate(place: Place, monkeypatch):
    """6 cases of 20 x 22 x 18 voxels, 2 teachers and their ensemble, 3 classes; 9 preprocessed cases."""
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: Usage(10, 10, 1000))
    problems = refused(place, *WORDS, "--select", "confidence")
    assert len(problems) == 1 and "are needed for 2 rounds of 6 cases, with probabilities, 0 MB are free" in problems[0]
    one = disk.estimate(Run(str(place.out), SelfTraining(DATASET, "3d_fullres", split="n2", n_teachers=2,
                                                         select="confidence")))  # fmt: skip
    assert one.predictions == pytest.approx(20 * 22 * 18 * 6 * (0.02 + 2 * 3) * 3)
    assert one.preprocessed == pytest.approx(20 * 22 * 18 * 9 * 4 * 1.5)
    assert ": 3 MB are needed" in problems[0]  # two rounds of 0.86 and 0.43 MB


def test_predictions_without_probabilities_are_not_thrown_away(place: Place, capsys):
    words = (*WORDS, "--rounds", "1")
    assert run(place, *words) == 0
    with pytest.raises(SemiSupervisedError) as caught:
        run(place, *words, "--select", "confidence")
    assert str(caught.value).count("was predicted without probabilities, which are needed now") == 2


def test_the_split_of_the_plans_is_used(place: Place, capsys):
    write_split(place.base, name="l10")
    write_plans_copy(901, split="l10", name="nnUNetPlans_l10")
    words = [word for word in WORDS if word not in ("--split", "n2")]
    assert run(place, *words, "-p", "nnUNetPlans_l10", "--rounds", "0") == 0
    assert place.settled().settings.split == "l10"
