"""Labelled and unlabelled patches, loaded by the same workers."""

from __future__ import annotations

from dataclasses import dataclass
from pydoc import locate
from typing import Any, ClassVar

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert3DTo2DTransform
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor
from torch import distributed as dist

from nnunet_ssl.data.batches import LabeledBatch, UnlabeledBatch
from nnunet_ssl.data.pool_remedies import commands_to_make_again
from nnunet_ssl.data.preprocess_case import settings_hash
from nnunet_ssl.data.streams import (
    PaddingMarked,
    TwoStreamLoader,
    UnlabeledDataset,
    UnlabeledLoader,
    single_process_loading,
)
from nnunet_ssl.data.unlabeled_store import made_with_other_settings, unlabeled_folder
from nnunet_ssl.data.views import StrongView, geometric_part, without_intensities
from nnunet_ssl.errors import complain
from nnunet_ssl.training.configured import nnUNetTrainerConfigured
from nnunet_ssl.training.pool import unlabeled_pool
from nnunet_ssl.training.settings import setting


@dataclass(frozen=True)
class SemiSupervisedHyperparameters:
    """What every semi-supervised trainer understands."""

    unlabeled_batch_size: int | None = setting(None, "unlabelled patches per step; null: the plans' batch size", low=1)
    monitor_withheld_labels: bool = setting(
        False, "log the true Dice of the pseudo-labels of withheld cases; reads their labels, for the log only"
    )


class nnUNetTrainerTwoStreams(nnUNetTrainerConfigured):
    """Adds the unlabelled stream to nnU-Net's loading; knows no loss."""

    Hyperparameters: ClassVar[type] = SemiSupervisedHyperparameters
    weak_labeled_view: ClassVar[bool] = False
    """Labelled patches too come as a weak view (geometry alone), and their padding is known."""
    needs_logits_alone: ClassVar[bool] = True
    """False for trainers that can use networks which answer with more in training, or build their own."""
    uses_unlabeled: ClassVar[bool] = True
    """False for a method's control on labelled cases alone: no pool is needed, the unlabelled batch is empty."""

    def set_up(self) -> None:
        super().set_up()
        self.strong_view: StrongView | None = None
        self._withheld_label: Tensor | None = None

    @classmethod
    def refuse(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        super().refuse(plans, configuration, dataset_json)
        chosen = PlansManager(plans).get_configuration(configuration)
        logits_alone = getattr(locate(chosen.network_arch_class_name), "answers_with_logits_alone", True)
        if cls.needs_logits_alone and not logits_alone:
            raise NotImplementedError(
                f"{cls.__name__} does not support {chosen.network_arch_class_name}, which answers with more than a "
                "segmentation in training. Use a trainer made for it, or other plans."
            )
        previous = chosen.previous_stage_name
        if previous is not None:
            raise NotImplementedError(
                f"{cls.__name__} does not support cascade stages ({configuration} needs the predictions of "
                f"{previous}). Train 3d_fullres, 3d_lowres or 2d."
            )

    def unlabeled_cases(self) -> dict[str, str]:
        """Case id -> preprocessed folder of the fold's unlabelled pool."""
        if not self.was_initialized:
            self.initialize()
        fold = self.split_of_fold()
        labeled_cases = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        withheld = fold.unlabeled if fold else []
        return unlabeled_pool(self.preprocessed_dataset_folder, withheld, labeled_cases, self._preprocess_command())

    def _preprocess_command(self) -> str:
        plans = self.plans_manager.plans_name
        return f"nnunet_ssl preprocess -d {self.dataset_id} -c {self.configuration_name} -p {plans}"

    def check_unlabeled_cases(self) -> None:
        """Refuse a pool that cannot be trained with, before any work.

        Raises:
            SemiSupervisedError: see :func:`unlabeled_pool`, or images preprocessed with other settings than the plans'.
        """
        if not self.uses_unlabeled:
            return
        pool = self.unlabeled_cases()
        settings = settings_hash(self.plans_manager.plans, self.configuration_name, self.dataset_json)
        folder = unlabeled_folder(self.preprocessed_dataset_folder)
        own = [case for case, source in pool.items() if source == folder]
        outdated = [case for case in own if made_with_other_settings(folder, case, settings)]
        if outdated:
            base = self.preprocessed_dataset_folder_base
            raise complain(
                f"{len(outdated)} images without label were preprocessed with other settings (spacing, normalisation) "
                f"than those of plans {self.plans_manager.plans_name} ({folder}):",
                outdated,
                "\n".join(["Run:", *commands_to_make_again(base, folder, outdated, self._preprocess_command())]),
            )

    def unlabeled_batch_size(self) -> int:
        """Unlabelled patches per step on this rank."""
        size = self.hyperparameters.unlabeled_batch_size
        if size is None:
            return self.batch_size
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if self.is_ddp else (1, 0)
        if size < ranks:
            raise ValueError(f"unlabeled_batch_size {size} is smaller than the number of GPUs, {ranks}")
        return size // ranks + (rank < size % ranks)

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders, the training one paired with the unlabelled stream in the same workers."""
        with single_process_loading():
            training, validation = (augmenter.data_loader for augmenter in super().get_dataloaders())
        weak = self.make_weak_view(training.transforms)
        self.strong_view = self.make_strong_view(
            anisotropic=any(isinstance(t, Convert3DTo2DTransform) for t in weak.transforms)
        )
        if self.weak_labeled_view:
            training._data = PaddingMarked(training._data)
        training.transforms = self.make_labeled_view(training.transforms)
        streams = self._with_unlabeled(training, weak) if self.uses_unlabeled else training
        processes = get_allowed_n_proc_DA()
        # a queued pair holds twice the patches, so half of nnU-Net's queue keeps its memory
        augmenter = self._in_workers(streams, processes, max(3, processes // 4))
        return augmenter, self._in_workers(
            validation, max(1, processes // 2) if processes else 0, max(3, processes // 4)
        )

    def _with_unlabeled(self, training: Any, weak: ComposeTransforms) -> TwoStreamLoader:
        pool = self.unlabeled_cases()
        monitored = self.hyperparameters.monitor_withheld_labels
        withheld = frozenset(c for c, folder in pool.items() if folder == self.preprocessed_dataset_folder)
        dataset = UnlabeledDataset(pool, withheld if monitored else frozenset(), with_monitor=monitored)
        unlabeled = UnlabeledLoader(dataset, self.unlabeled_batch_size(), training, weak)
        self.print_to_log_file(f"Unlabelled pool: {len(pool)} cases, {len(withheld)} of them withheld training cases.")
        return TwoStreamLoader(training, unlabeled)

    def make_labeled_view(self, training: ComposeTransforms) -> ComposeTransforms:
        """What the workers do to labelled patches, given nnU-Net's augmentation: just that, or its geometry."""
        return without_intensities(training) if self.weak_labeled_view else training

    def make_weak_view(self, training: ComposeTransforms) -> ComposeTransforms:
        """What the workers do to unlabelled patches, given nnU-Net's training augmentation: its geometric part."""
        return geometric_part(training)

    def make_strong_view(self, anisotropic: bool) -> StrongView:
        """The photometric view; a method adds transforms with ``StrongView(..., extra=...)``."""
        return StrongView((0,) if anisotropic else None, masked_channels=self.masked_channels)

    @property
    def masked_channels(self) -> list[int]:
        """Channels that nnU-Net normalises inside the nonzero mask, and whose background it keeps at zero."""
        return [i for i, masked in enumerate(self.configuration_manager.use_mask_for_norm) if masked]

    def _in_workers(self, loader: Any, processes: int, cached: int) -> Any:
        if processes == 0:
            return SingleThreadedAugmenter(loader, None)
        pin = self.device.type == "cuda"
        augmenter = NonDetMultiThreadedAugmenter(loader, None, processes, cached, pin_memory=pin, wait_time=0.002)
        next(augmenter)  # starts the workers, as nnU-Net does
        return augmenter

    def _on_device(self, batch: Any) -> Any:
        if isinstance(batch, list):
            return [self._on_device(b) for b in batch]
        return batch.to(self.device, non_blocking=True)

    def split_batch(self, batch: dict[str, Any]) -> tuple[LabeledBatch, UnlabeledBatch]:
        """Move one pair of batches to the training device."""
        assert self.strong_view is not None
        image, valid = self._on_device(batch["data"]), None
        if image.shape[1] > self.num_input_channels:  # see without_intensities
            image, valid = image[:, :-1], image[:, -1:] > 0
        labeled = LabeledBatch(image, self._on_device(batch["target"]), self.strong_view, valid)
        if not self.uses_unlabeled:
            return labeled, UnlabeledBatch(image[:0], image[:0, :1] > 0, lambda nothing: nothing)
        channels = self._on_device(batch["unlabeled"]["target"])
        self._withheld_label = channels[:, 1:2] if channels.shape[1] > 1 else None
        weak = self._on_device(batch["unlabeled"]["data"])
        return labeled, UnlabeledBatch(weak, channels[:, :1] >= 0, self.strong_view)
