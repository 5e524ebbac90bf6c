"""Which preprocessed cases form the unlabelled pool of a fold."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.utils import get_identifiers_from_splitted_dataset_folder

from nnunet_ssl.data.dataset_json import read_dataset_json
from nnunet_ssl.data.unlabeled import unlabeled_folder, unlabeled_identifiers
from nnunet_ssl.errors import complain


def unlabeled_pool(
    labeled_folder: str, withheld: Collection[str], labeled_cases: Collection[str], command: str
) -> dict[str, str]:
    """Case id -> preprocessed folder, for the withheld cases of the fold and every image without a label.

    Args:
        labeled_folder: nnU-Net's preprocessed folder of the configuration.
        withheld: cases of that folder whose label the split hides from this fold.
        labeled_cases: every case id of that folder, validation cases included.
        command: the `nnunet_ssl preprocess` call that would help.

    Raises:
        SemiSupervisedError: nothing in the pool, raw images that are not preprocessed, or a case id in both folders.
    """
    folder = unlabeled_folder(labeled_folder)
    own = unlabeled_identifiers(folder)
    both = sorted(set(own) & set(labeled_cases))
    if both:
        raise complain(
            f"These case ids are in {folder} and also among the labelled cases, so that a validation case could "
            "enter training:",
            both,
            "Rename or remove the images in imagesUn and the preprocessed files.",
        )
    missing = sorted(set(_raw_cases(labeled_folder)) - set(own))
    if missing:
        raise complain(
            f"{len(missing)} images without label are not preprocessed for this configuration ({folder}):",
            missing,
            f"Run: {command}",
        )
    if not own and not withheld:
        raise complain(
            f"There is nothing unlabelled to train with: {folder} is empty and the split withholds no label.",
            remedy=f"Put images into imagesUn and run: {command}\n"
            "Or withhold labels: nnunet_ssl splits, then nnunet_ssl plans --split NAME.",
        )
    return dict.fromkeys(withheld, labeled_folder) | dict.fromkeys(own, folder)


def _raw_cases(labeled_folder: str) -> list[str]:
    """Ids in imagesUn of the raw dataset; none where the raw data are not on this machine."""
    dataset = Path(labeled_folder).parent
    if not nnUNet_raw.is_set():
        return []
    images = Path(nnUNet_raw, dataset.name, "imagesUn")
    if not images.is_dir():
        return []
    ending = read_dataset_json(str(dataset / "dataset.json"))["file_ending"]
    cases = get_identifiers_from_splitted_dataset_folder(str(images), ending)
    return [str(case) for case in cases if not case.startswith(".")]  # ._case_0000.nii.gz of macOS is no image
