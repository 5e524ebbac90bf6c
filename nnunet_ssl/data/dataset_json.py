"""nnU-Net's dataset.json, with a look at the form of what is needed."""

from __future__ import annotations

from typing import Any

from nnunet_ssl.data.text_files import read_json
from nnunet_ssl.errors import complain


def read_dataset_json(path: str) -> dict[str, Any]:
    """Content of a dataset.json that nnU-Net reads as well.

    Raises:
        SemiSupervisedError: absent, unreadable, or without what images and labels need.
    """
    content: dict[str, Any] = read_json(path, dict, nnunet_reads_it=True)
    channels = "modality" if "modality" in content and "channel_names" not in content else "channel_names"
    kinds = {"file_ending": str, "labels": dict, channels: dict}
    missing = [key for key in kinds if key not in content]
    if missing:
        raise complain(f"{path} lacks {' and '.join(missing)}.")
    wrong = [f'"{k}" is {content[k]!r}' for k, kind in kinds.items() if not isinstance(content[k], kind)]
    if wrong:
        raise complain(f"{path} does not have the form of nnU-Net's dataset.json:", wrong)
    return content
