"""The preprocessed folder of the images without labels: which cases are in it, and how a case gets there whole."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from filelock import FileLock, Timeout
from nnunetv2.training.dataloading.nnunet_dataset import file_ending_dataset_mapping, infer_dataset_class

from nnunet_ssl.errors import SemiSupervisedError, complain

SUFFIX = "__unlabeled"
SCRATCH = ".unfinished"  # a hidden sub-folder: nnU-Net looks at files only
LOCK = ".lock"  # in it, beside a folder per case; no case has such a name, for hidden images are ignored
RECORD = "nnunet_ssl"  # key in the properties of a case
FOLDER = "folder"  # key in the record: where the images were; they may be moved, so that nothing depends on it


def unlabeled_folder(preprocessed_dataset_folder: str) -> str:
    """Where the images without labels of a configuration are preprocessed to, given nnU-Net's labelled folder."""
    return os.path.normpath(preprocessed_dataset_folder) + SUFFIX


def unlabeled_identifiers(folder: str) -> list[str]:
    """Finished cases of a preprocessed folder, sorted; none if the folder is absent.

    Raises:
        SemiSupervisedError: cases in two file formats, of which nnU-Net could read only one.
    """
    names = os.listdir(folder) if os.path.isdir(folder) else []
    endings = [ending for ending in file_ending_dataset_mapping if any(name.endswith(f".{ending}") for name in names)]
    if len(endings) > 1:
        raise complain(
            f"{folder} holds cases in more than one file format ({', '.join(endings)}).",
            remedy=f"Delete the folder and preprocess again:\n{shlex.join(['rm', '-r', folder])}",
        )
    found = file_ending_dataset_mapping[endings[0]].get_identifiers(folder) if endings else []
    return sorted(str(case) for case in found if not case.startswith("."))  # ._case.b2nd of macOS is no case


def is_up_to_date(folder: str, case: str, record: Mapping[str, Any]) -> bool:
    """Whether a finished case was made from these very files with these settings."""
    try:
        stored = load_pickle(os.path.join(folder, f"{case}.pkl"))[RECORD]
        return {**stored, FOLDER: ""} == {**record, FOLDER: ""}
    except Exception:  # missing, damaged or foreign: it is made again
        return False


def made_with_other_settings(folder: str, case: str, settings: str) -> bool:
    """Whether a finished case was preprocessed under other plans than those with this hash, or its record is lost."""
    try:
        return bool(load_pickle(os.path.join(folder, f"{case}.pkl"))[RECORD]["settings"] != settings)
    except Exception:  # missing, damaged or foreign: the preprocessing makes it again
        return True


def folder_of_images(folder: str, case: str) -> str | None:
    """Where the images of a finished case are; None: not recorded, or not there any more."""
    try:
        record = load_pickle(os.path.join(folder, f"{case}.pkl"))[RECORD]
        images, names = record[FOLDER], [source["name"] for source in record["sources"]]
    except Exception:  # missing, damaged or foreign
        return None
    return images if all(os.path.isfile(os.path.join(images, name)) for name in names) else None


def case_files(folder: str, case: str) -> list[str]:
    """Paths of everything that belongs to a preprocessed case."""
    endings = [f"{part}.{ending}" for ending in (*file_ending_dataset_mapping, "npy") for part in ("", "_seg")]
    paths = [os.path.join(folder, f"{case}{ending}") for ending in (*endings, ".pkl")]
    return [path for path in paths if os.path.lexists(path)]


@contextmanager
def open_for_writing(folder: str) -> Iterator[str]:
    """Hold the folder against a second run; yields the scratch sub-folder, emptied of what a killed run left.

    Raises:
        SemiSupervisedError: another run is writing here.
    """
    scratch = os.path.join(folder, SCRATCH)
    os.makedirs(scratch, exist_ok=True)
    lock = FileLock(os.path.join(scratch, LOCK), timeout=0)  # freed by the system when its process dies
    try:
        lock.acquire()
    except Timeout as error:
        raise complain(f"Another `nnunet_ssl preprocess` is writing to {folder}.", remedy="Wait for it.") from error
    try:
        for entry in os.scandir(scratch):
            if entry.is_dir():
                shutil.rmtree(entry.path)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def tidy(folder: str) -> None:
    """Remove what a killed run left, where that is possible: it does no harm, and a run in progress needs its own."""
    if os.path.isdir(os.path.join(folder, SCRATCH)):
        with suppress(SemiSupervisedError, OSError), open_for_writing(folder):
            pass


def publish(case: str, scratch: str, folder: str) -> None:
    """Move the finished files of a case into the folder; the one that makes it visible goes last.

    Raises:
        RuntimeError: nnU-Net would not find the case, or not what its loader needs.
    """
    dataset_class = infer_dataset_class(scratch)
    if list(dataset_class.get_identifiers(scratch)) != [case]:
        raise RuntimeError(f"the preprocessor wrote no case that nnU-Net finds: {sorted(os.listdir(scratch))}")
    if "class_locations" not in load_pickle(os.path.join(scratch, f"{case}.pkl")):
        raise RuntimeError("the preprocessor did not store what its run_case returned")
    visible = {f"{case}.{ending}" for ending in file_ending_dataset_mapping}
    unpacked = {f"{case}.npy", f"{case}_seg.npy"}  # nnU-Net makes these from .npz and prefers them
    for name in visible | unpacked:
        if os.path.exists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))
    for name in sorted(os.listdir(scratch), key=lambda name: name in visible):
        os.replace(os.path.join(scratch, name), os.path.join(folder, name))
