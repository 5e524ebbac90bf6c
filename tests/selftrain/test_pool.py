"""The folder of the images without label."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

from nnunet_ssl.selftrain.pool import link_pool, same_images
from nnunet_ssl.selftrain.run import Run
from nnunet_ssl.selftrain.settings import SelfTraining
from tests.running import CASES, write_split
from tests.tiny import DATASET


def test_links_to_images_and_to_nothing_else(make_dataset, tmp_path):
    base = make_dataset(preprocess=False, channels=2)
    write_split(base)
    run = Run(str(tmp_path / "out"), SelfTraining(DATASET, "3d_fullres", split="n2"))
    link_pool(run)
    pool = Path(run.pool_folder)
    cases = ["extra_000", "extra_001", "extra_002", *CASES[2:5]]
    assert sorted(path.name for path in pool.iterdir()) == [f"{c}_000{n}.nii.gz" for c in cases for n in (0, 1)]
    for path in pool.iterdir():
        target = Path(os.readlink(path))
        assert target.is_absolute() and target.name == path.name and target.parent.name in ("imagesTr", "imagesUn")


def test_links_that_are_right_stay_and_others_go(make_dataset, tmp_path):
    base = make_dataset(preprocess=False)
    write_split(base)
    run = Run(str(tmp_path / "out"), SelfTraining(DATASET, "3d_fullres", split="n2"))
    link_pool(run)
    pool = Path(run.pool_folder)
    moment = (pool / "extra_000_0000.nii.gz").lstat().st_mtime_ns
    (pool / "extra_001_0000.nii.gz").unlink()
    (pool / "extra_001_0000.nii.gz").symlink_to("elsewhere")
    (pool / "gone_0000.nii.gz").symlink_to("elsewhere")
    (pool / "extra_002_0000.nii.gz.123.tmp").symlink_to("elsewhere")  # another prediction begins this moment
    link_pool(run)
    assert (pool / "extra_000_0000.nii.gz").lstat().st_mtime_ns == moment
    assert (pool / "extra_001_0000.nii.gz").exists()
    assert len([*pool.iterdir()]) == 7 and not (pool / "gone_0000.nii.gz").is_symlink()


def test_a_withheld_case_is_no_pool_of_a_fold_that_labels_it(make_dataset, tmp_path):
    make_dataset(preprocess=False)
    run = Run(str(tmp_path), SelfTraining(DATASET, "3d_fullres"))  # no split: nnU-Net's own folds
    assert sorted(run.pool) == ["extra_000", "extra_001", "extra_002"] and run.withheld == []
    assert run.labeled == CASES


def test_images_are_compared_by_content(tmp_path):
    for name, content in (("a", b"12"), ("b", b"13"), ("c", b"123"), ("x", b"12"), ("y", b"99")):
        (tmp_path / name).write_bytes(content)
    pool = {name: [str(tmp_path / name)] for name in "abc"}
    assert same_images(pool, [str(tmp_path / name) for name in ("y", "x", "gone")]) == {"a": str(tmp_path / "x")}


def test_when_and_under_which_name_an_image_was_compressed_makes_no_difference(tmp_path):
    for name, content, moment in (("a", b"12", 1), ("b", b"13", 1), ("x", b"12", 2), ("y", b"99", 1)):
        with open(tmp_path / f"{name}.gz", "wb") as file, gzip.GzipFile(name, "wb", 9, file, mtime=moment) as packed:
            packed.write(content)
    (tmp_path / "empty.gz").touch()
    pool = {name: [str(tmp_path / f"{name}.gz")] for name in ("a", "b", "empty")}
    assert same_images(pool, [str(tmp_path / f"{name}.gz") for name in "xy"]) == {"a": str(tmp_path / "x.gz")}
