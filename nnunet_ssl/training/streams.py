"""Labelled and unlabelled patches: the pool, loaders that share nnU-Net's workers, views, and batches on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert3DTo2DTransform
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import Tensor

from nnunet_ssl.data.batches import VIEWS, LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.pool import unlabeled_pool
from nnunet_ssl.data.pool_remedies import commands_to_make_again
from nnunet_ssl.data.preprocess_case import settings_hash
from nnunet_ssl.data.streams import PaddingMarked, TwoStreamLoader, UnlabeledDataset, UnlabeledLoader
from nnunet_ssl.data.unlabeled_store import made_with_other_settings, unlabeled_folder
from nnunet_ssl.data.views import NameWithheld, augmentation
from nnunet_ssl.errors import complain
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.distributed import number_of_ranks, rank
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class WatchedHyperparameters:
    """What a trainer of terms understands, with unlabelled images or without."""

    pull_looks: int = setting(
        2, "steps per epoch in which the pull of each term is measured, fewer where epochs are short; 0: none", low=0
    )


@dataclass(frozen=True)
class SemiSupervisedHyperparameters(WatchedHyperparameters):
    """What every semi-supervised trainer understands."""

    unlabeled_batch_size: int | None = setting(
        None,
        "unlabelled patches per step, of all GPUs together; null: the plans' batch size on each",
        source="of every trainer",
        low=1,
    )
    guard: bool = setting(
        True,
        "hold the unlabelled weight back at the start, and while pseudo-labels lack the labels' foreground",
        source="recommended, of every trainer",
    )
    monitor_withheld_labels: bool = setting(
        False,
        "log the true Dice of the pseudo-labels of withheld cases; reads their labels, for the log only",
        source="of every trainer",
    )


class Step(NamedTuple):
    """What the loaders give for one step.

    Attributes:
        withheld: (B_U, 1, *P) labels of the unlabelled patches, for monitoring alone and only where that is asked for.
    """

    labeled: LabeledBatch
    unlabeled: UnlabeledBatch
    withheld: Tensor | None


class Streams:
    """The two streams of one trainer.

    Args:
        trainer: whose plans, split, settings and device count.
        views: what its losses read, names of ``VIEWS``; nothing else is computed.
        pool: False for trainers on labelled cases alone: no pool is needed, the unlabelled batch is empty.
    """

    def __init__(self, trainer: nnUNetTrainerConfigured, views: Sequence[str], pool: bool) -> None:
        unknown = [view for view in views if view not in VIEWS]
        if unknown:
            raise ValueError(f"{type(trainer).__name__}.views names {unknown}; there are {', '.join(VIEWS)}")
        self.trainer, self.views, self.pool = trainer, tuple(views), pool
        self.strong_view: Callable[[Tensor], Tensor] | None = None

    # ---- the unlabelled cases

    def cases(self) -> dict[str, str]:
        """Case id -> preprocessed folder of the fold's unlabelled pool."""
        trainer = self.trainer
        if not trainer.was_initialized:
            trainer.initialize()
        fold, folder = trainer.split_of_fold(), trainer.preprocessed_dataset_folder
        labeled_cases = trainer.dataset_class.get_identifiers(folder)
        return unlabeled_pool(folder, fold.unlabeled if fold else [], labeled_cases, self._preprocess_command())

    def _preprocess_command(self) -> str:
        trainer = self.trainer
        plans = trainer.plans_manager.plans_name
        return f"nnunet_ssl preprocess -d {trainer.dataset_id} -c {trainer.configuration_name} -p {plans}"

    def check_cases(self) -> None:
        """Refuse a pool that cannot be trained with, before any work.

        Raises:
            SemiSupervisedError: see :func:`unlabeled_pool`, or images preprocessed with other settings than the plans'.
        """
        if not self.pool:
            return
        trainer, pool = self.trainer, self.cases()
        settings = settings_hash(trainer.plans_manager.plans, trainer.configuration_name, trainer.dataset_json)
        folder = unlabeled_folder(trainer.preprocessed_dataset_folder)
        own = [case for case, source in pool.items() if source == folder]
        outdated = [case for case in own if made_with_other_settings(folder, case, settings)]
        if outdated:
            base = trainer.preprocessed_dataset_folder_base
            raise complain(
                f"{len(outdated)} images without label were preprocessed with other settings (spacing, normalisation) "
                f"than those of plans {trainer.plans_manager.plans_name} ({folder}):",
                outdated,
                "\n".join(["Run:", *commands_to_make_again(base, folder, outdated, self._preprocess_command())]),
            )

    @property
    def unlabeled_batch_size(self) -> int:
        """Unlabelled patches per step on this rank."""
        if not self.pool:
            return 0
        size = self.trainer.hyperparameters.unlabeled_batch_size
        if size is None:
            return self.trainer.batch_size
        ranks = number_of_ranks()
        if size < ranks:
            raise ValueError(f"unlabeled_batch_size {size} is smaller than the number of GPUs, {ranks}")
        return size // ranks + (rank() < size % ranks)

    # ---- loading

    @property
    def masked_channels(self) -> list[int]:
        """Channels that nnU-Net normalises inside the nonzero mask, and whose background it keeps at zero."""
        return [i for i, masked in enumerate(self.trainer.configuration_manager.use_mask_for_norm) if masked]

    def loaders(
        self,
        training: Any,
        validation: Any,
        make_strong_view: Callable[[bool], Callable[[Tensor], Tensor]],
        labeled_steps: Sequence[BasicTransform] = (),
    ) -> tuple[Any, Any]:
        """Augmenters of training and validation, the former with both streams in the same workers.

        Args:
            training, validation: nnU-Net's loaders.
            make_strong_view: see the trainer.
            labeled_steps: what the workers do to labelled patches behind nnU-Net's augmentation.
        """
        nnunet = training.transforms
        self.strong_view = make_strong_view(any(isinstance(t, Convert3DTo2DTransform) for t in nnunet.transforms))
        training.transforms = ComposeTransforms([*self._augmentation("labeled", nnunet).transforms, *labeled_steps])
        training._data = PaddingMarked(training._data)
        streams = TwoStreamLoader(training, self._unlabeled(training, nnunet) if self.pool else None)
        processes = get_allowed_n_proc_DA()
        # a queued pair holds twice the patches, so half of nnU-Net's queue keeps its memory
        cached = max(3, processes // 4)
        augmenter = self._in_workers(streams, processes, cached)
        return augmenter, self._in_workers(validation, max(1, processes // 2) if processes else 0, cached)

    def needs(self, stream: str, view: str) -> bool:
        """Whether the losses see this view of the labelled or unlabelled patches; a strong one is made of the weak."""
        return f"{stream}.{view}" in self.views or (view == "weak" and f"{stream}.strong" in self.views)

    def _augmentation(self, stream: str, nnunet: ComposeTransforms) -> ComposeTransforms:
        whole, weak = (self.needs(stream, view) for view in ("image", "weak"))
        return augmentation(nnunet, whole, weak, stream == "labeled", self.masked_channels)

    def _unlabeled(self, training: Any, nnunet: ComposeTransforms) -> UnlabeledLoader:
        trainer, pool = self.trainer, self.cases()
        monitored = trainer.hyperparameters.monitor_withheld_labels
        withheld = frozenset(c for c, folder in pool.items() if folder == trainer.preprocessed_dataset_folder)
        dataset = UnlabeledDataset(pool, withheld if monitored else frozenset(), with_monitor=monitored)
        transforms = self._augmentation("unlabeled", nnunet)
        if monitored:
            transforms = ComposeTransforms([*transforms.transforms, NameWithheld()])
        trainer.print_to_log_file(
            f"Unlabelled pool: {len(pool)} cases, {len(withheld)} of them withheld training cases."
        )
        return UnlabeledLoader(dataset, self.unlabeled_batch_size, training, transforms)

    def _in_workers(self, loader: Any, processes: int, cached: int) -> Any:
        if processes == 0:
            return SingleThreadedAugmenter(loader, None)
        pin = self.trainer.device.type == "cuda"
        augmenter = NonDetMultiThreadedAugmenter(loader, None, processes, cached, pin_memory=pin, wait_time=0.002)
        next(augmenter)  # starts the workers, as nnU-Net does
        return augmenter

    # ---- batches

    def split(self, batch: dict[str, Any]) -> Step:
        """Move what the loaders give for one step to the training device, every part under its name."""
        extra = self._on_device(batch["extra"])
        valid = extra.pop("valid")
        views = self._views("labeled", self._on_device(batch["data"]), extra)
        labeled = LabeledBatch(target=self._on_device(batch["target"]), valid=valid, extra=extra, **views)
        if not self.pool:
            image = next(v for v in (views["image"], views["weak"]) if v is not None)[:0]
            return Step(labeled, UnlabeledBatch(image, valid[:0], lambda nothing: nothing, image), None)
        rest = {k: v for k, v in batch["unlabeled"].items() if k not in ("data", "keys")}
        rest = self._on_device(rest)
        valid, withheld = rest.pop("valid"), rest.pop("withheld", None)
        views = self._views("unlabeled", self._on_device(batch["unlabeled"]["data"]), rest)
        return Step(labeled, UnlabeledBatch(valid=valid, **views), withheld)

    def _views(self, stream: str, images: Tensor, named: dict[str, Tensor]) -> dict[str, Any]:
        """Arguments of a batch; a weak view beside the whole augmentation is taken from what is named."""
        whole = self.needs(stream, "image")
        weak = (named.pop("weak") if whole else images) if self.needs(stream, "weak") else None
        strong = self.strong_view if f"{stream}.strong" in self.views else None
        return {"image": images if whole else None, "weak": weak, "make_strong": strong}

    def _on_device(self, batch: Any) -> Any:
        if isinstance(batch, dict):
            return {name: self._on_device(b) for name, b in batch.items()}
        if isinstance(batch, list):
            return [self._on_device(b) for b in batch]
        return batch.to(self.trainer.device, non_blocking=True)


__all__ = ["SemiSupervisedHyperparameters", "Step", "Streams", "WatchedHyperparameters"]
