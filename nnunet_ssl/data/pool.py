"""Which preprocessed cases form the unlabelled pool of a fold."""

from __future__ import annotations

import os
from collections.abc import Collection

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.data.pool_remedies import IMAGES, commands_to_remove, images_folder, raw_cases
from nnunet_ssl.data.split_requests import splits_command
from nnunet_ssl.data.unlabeled_store import unlabeled_folder, unlabeled_identifiers
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
    folder, base = unlabeled_folder(labeled_folder), os.path.dirname(os.path.normpath(labeled_folder))
    own = unlabeled_identifiers(folder)
    both = sorted(set(own) & set(labeled_cases))
    if both:
        raise complain(
            f"These case ids are in {folder} and also among the labelled cases, so that a validation case could "
            "enter training:",
            both,
            "\n".join(["Run:", *commands_to_remove(base, folder, both)]),
        )
    missing = sorted(set(raw_cases(base)) - set(own))
    if missing:
        raise complain(
            f"{len(missing)} images without label are not preprocessed for this configuration ({folder}):",
            missing,
            f"Run: {command}",
        )
    if not own and not withheld:
        dataset = dataset_id(os.path.basename(base))
        raise complain(
            f"There is nothing unlabelled to train with: {folder} is empty and the split withholds no label.",
            remedy=f"Put images into {images_folder(base) or IMAGES} and run: {command}\n"
            f"Or withhold labels: {splits_command(dataset)}; then nnunet_ssl plans -d {dataset} --split l10"
            "   (and train with the plans that this writes, -p)",
        )
    return dict.fromkeys(withheld, labeled_folder) | dict.fromkeys(own, folder)
