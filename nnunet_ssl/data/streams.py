"""Two streams of patches from one pool of workers: labelled as nnU-Net loads them, unlabelled without any label."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import blosc2
import numpy as np
import torch
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class, nnUNetBaseDataset
from torch import Tensor

UNKNOWN_LABEL = -2  # in the monitoring channel: a case without any label (-1 is nnU-Net's padding)


class UnlabeledDataset(nnUNetBaseDataset):
    """Preprocessed images without their segmentation or properties, memory-mapped.

    Neither the segmentation file nor the properties of a case are opened: a withheld label cannot leak. In their place
    stands an all-zero map that takes no memory; padding turns it into -1, which marks the valid voxels.

    Args:
        sources: case id -> preprocessed folder that holds it.
        monitored: ids whose withheld label is read for monitoring, as a segmentation channel before the map. Training
            does not see it. Empty: one channel, nothing read.
        with_monitor: give every case that channel, ``UNKNOWN_LABEL`` where there is no label.
    """

    def __init__(
        self, sources: Mapping[str, str], monitored: frozenset[str] = frozenset(), with_monitor: bool = False
    ) -> None:
        super().__init__(next(iter(sources.values())), sorted(sources))
        self.sources = dict(sources)
        self.monitored = monitored
        self.with_monitor = with_monitor

    def load_case(self, identifier: str) -> tuple[Any, np.ndarray, None, dict]:
        folder = self.sources[identifier]
        image = open_image(folder, identifier)
        no_label = np.broadcast_to(np.int8(0), (1, *image.shape[1:]))
        if not self.with_monitor:
            return image, no_label, None, {"class_locations": None}
        if identifier in self.monitored:
            label = infer_dataset_class(folder)(folder, [identifier]).load_case(identifier)[1][:]
        else:
            label = np.broadcast_to(np.int8(UNKNOWN_LABEL), no_label.shape)
        return image, np.concatenate([label[:1].astype(np.int16), no_label]), None, {"class_locations": None}

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        return sorted(infer_dataset_class(folder).get_identifiers(folder))

    @staticmethod
    def save_case(data: np.ndarray, seg: np.ndarray, properties: dict, output_filename_truncated: str) -> None:
        raise NotImplementedError("this dataset only reads; `nnunet_ssl preprocess` writes")


def open_image(folder: str, identifier: str) -> Any:
    """The image (C, *S) of a preprocessed case alone, memory-mapped, in either of nnU-Net's file formats."""
    compressed = Path(folder, f"{identifier}.b2nd")
    if compressed.is_file():
        mmap = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: blosc2 cannot map files on Windows
        return blosc2.open(urlpath=str(compressed), mode="r", dparams={"nthreads": 1}, **mmap)
    unpacked = Path(folder, f"{identifier}.npy")
    if unpacked.is_file():
        return np.load(unpacked, mmap_mode="r")
    return np.load(Path(folder, f"{identifier}.npz"))["data"]


class PaddingMarked:
    """A labelled dataset whose segmentations have one more channel, all zero: where it is padded, a crop is -1.

    The segmentation itself is -1 outside the body too, so that padding cannot be told from it.
    """

    def __init__(self, dataset: nnUNetBaseDataset) -> None:
        self.dataset = dataset

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict]:
        image, segmentation, previous, properties = self.dataset.load_case(identifier)
        return image, _ZeroBehind(segmentation), previous, properties


class _ZeroBehind:
    """(C, *S) memory-mapped -> (C + 1, *S), of which no more is read than a crop asks for."""

    def __init__(self, segmentation: Any) -> None:
        self.segmentation = segmentation
        self.shape = (segmentation.shape[0] + 1, *segmentation.shape[1:])

    def __getitem__(self, slices: tuple[slice, ...]) -> np.ndarray:
        crop = np.asarray(self.segmentation[slices])
        return np.concatenate([crop, np.zeros_like(crop[:1])])


class UnlabeledLoader(nnUNetDataLoader):
    """nnU-Net's loader for cases without labels: random patches, no foreground oversampling, no ignore handling."""

    def __init__(self, dataset: UnlabeledDataset, batch_size: int, like: nnUNetDataLoader, transforms: Any) -> None:
        is_2d = like.patch_size_was_2d
        patch_size, final_patch_size = (s[1:] if is_2d else s for s in (like.patch_size, like.final_patch_size))
        super().__init__(dataset, batch_size, patch_size, final_patch_size, _NoLabels(), 0.0, transforms=transforms)


class _NoLabels:
    """What nnU-Net's loader asks of a label manager, for data without labels."""

    all_labels: ClassVar[list[int]] = []
    has_ignore_label = False


class Named:
    """An augmentation that keeps by name what nnU-Net's loader drops: all results but image and segmentation."""

    def __init__(self, transforms: Callable[..., dict]) -> None:
        self.transforms = transforms
        self._kept: list[dict[str, Tensor]] = []

    def __call__(self, **case: Tensor) -> dict:
        result = self.transforms(**case)
        self._kept.append({k: v for k, v in result.items() if k not in ("image", "segmentation")})
        return result

    def take(self) -> dict[str, Tensor]:
        """What was kept since the last call, as a batch (B, ...) by name."""
        kept, self._kept = self._kept, []
        return {name: torch.stack([case[name] for case in kept]) for name in kept[0]}


class TwoStreamLoader(SlimDataLoaderBase):
    """Pairs of a labelled and an unlabelled batch, so that both streams share nnU-Net's workers.

    A batch is nnU-Net's own labelled batch with what the augmentation computed beside it under ``extra``, such as
    ``valid``, and under ``unlabeled`` ``data`` (B, C, *P), ``keys`` and again what the augmentation names.
    """

    def __init__(self, labeled: nnUNetDataLoader, unlabeled: UnlabeledLoader | None) -> None:
        super().__init__(None, labeled.batch_size)
        self.labeled = labeled
        self.unlabeled = unlabeled
        for loader in (labeled, unlabeled):
            if loader is not None:
                loader.transforms = Named(loader.transforms)

    def generate_train_batch(self) -> dict[str, Any]:
        batch = {**next(self.labeled), "extra": self.labeled.transforms.take()}
        if self.unlabeled is not None:
            other = next(self.unlabeled)
            other.pop("target")
            batch["unlabeled"] = other | self.unlabeled.transforms.take()
        return batch


@contextmanager
def single_process_loading() -> Iterator[None]:
    """Makes nnU-Net build its loaders without starting workers, so that they can be combined first."""
    name = "nnUNet_n_proc_DA"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
