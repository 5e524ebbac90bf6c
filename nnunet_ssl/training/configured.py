"""nnU-Net's trainer, configured by the settings block of the plans, with checkpoints that resume exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA
from torch import nn

from nnunet_ssl.data.folders import dataset_id
from nnunet_ssl.data.nnunet_folds import check_fold
from nnunet_ssl.data.shown_classes import unlearnable
from nnunet_ssl.data.splits import Fold, load_fold
from nnunet_ssl.data.usable_data import refuse_unusable_data
from nnunet_ssl.errors import complain
from nnunet_ssl.system.failures import system_errors
from nnunet_ssl.system.processes import EndsWithParent
from nnunet_ssl.system.run_lock import alone_in, refuse_if_trained_elsewhere
from nnunet_ssl.system.threads import keep_to_granted_threads
from nnunet_ssl.training.card import MethodCard
from nnunet_ssl.training.checkpoint import (
    CHECKPOINT_VERSION,
    changed_settings,
    check_version,
    random_state,
    read_extra_state,
    seed_everything,
    set_random_state,
    what_is_saved,
    write_atomically,
)
from nnunet_ssl.training.network import for_bfloat16_on_cpu, freeze_unused_heads, unwrap
from nnunet_ssl.training.prediction import validate
from nnunet_ssl.training.published_recipes import PUBLISHED
from nnunet_ssl.training.recipe import NNUNET_EPOCHS, Recipe
from nnunet_ssl.training.settings import (
    BLOCK,
    Settings,
    check_kept_epochs,
    check_mirror_axes,
    check_stride,
    parse_settings,
)


def kept_checkpoint(epoch: int) -> str:
    """File that the setting ``kept_epochs`` keeps after so many epochs."""
    return f"checkpoint_epoch_{epoch}.pth"


@dataclass(frozen=True)
class NoHyperparameters:
    """For trainers that have none."""


class nnUNetTrainerConfigured(nnUNetTrainer):
    """Stock nnU-Net on the labelled cases of a split, with what nnU-Net hard-codes read from the plans.

    Without a settings block nothing differs from nnUNetTrainer but the checkpoints: they are written atomically and
    carry the random state.
    """

    card: ClassVar[MethodCard]
    Hyperparameters: ClassVar[type] = NoHyperparameters
    length_variant_epochs: ClassVar[int | None] = None
    recipe: ClassVar[Recipe] = Recipe()
    has_deep_supervision: ClassVar[bool] = True  # the network has outputs at several resolutions
    mirror_axes: list[int] | None = None
    kept_epochs: list[int] | None = None
    seed: int | None = None
    cpu_bfloat16: bool = False

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        settings = self.settings_of(plans)  # before nnU-Net creates the results folder
        self.check_supported(plans, configuration, dataset_json)
        refuse_unusable_data(plans, configuration, dataset_json)
        check_mirror_axes(settings.training.mirror_axes, plans, configuration)
        check_kept_epochs(settings.training.kept_epochs, self.planned_epochs(plans))
        check_stride(settings.prediction, plans, configuration)
        if settings.split is None:
            check_fold(plans, configuration, fold)
        refuse_if_trained_elsewhere(plans, type(self).__name__, configuration, fold)
        plans.setdefault("continue_training", False)  # restored init_args lack it
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp and device.type == "cpu":  # nnU-Net takes CUDA for granted with several processes
            self.device, self.grad_scaler = device, None
        self.settings = settings
        self.hyperparameters: Any = settings.hyperparameters
        self._random_state_to_restore: dict[str, Any] | None = None
        self._fold_of_checkpoint: dict[str, list[str]] | None = None
        self._resumed = False
        self._follow_recipe()
        for name, value in asdict(settings.training).items():
            if value is not None and name not in ("optimizer", "recipe"):
                setattr(self, name, value)
        self.num_epochs = self.planned_epochs(plans)
        if device.type == "cpu":
            keep_to_granted_threads()
        self.set_up()

    def _follow_recipe(self) -> None:
        """Replace what nnU-Net hard-codes and has just set."""
        recipe = self.recipe_in_force = self.recipe_of(self.settings)
        self.optimization = recipe.optimization_for(self.settings.training.optimizer)
        if self.optimization.rate is not None:
            self.initial_lr = self.optimization.rate
        if self.optimization.weight_decay is not None:
            self.weight_decay = self.optimization.weight_decay
        if recipe.validation_steps is not None:
            self.num_val_iterations_per_epoch = recipe.validation_steps
        if recipe.foreground_share is not None:
            self.oversample_foreground_percent = recipe.foreground_share
        strides = self.configuration_manager.network_arch_init_kwargs.get("strides")
        one_output = strides is not None and len(strides) < 3  # which nnU-Net's loss weights 0 / 0: not a number
        if one_output or not (self.has_deep_supervision and recipe.deep_supervision):
            self.enable_deep_supervision = False
        if not recipe.mixed_precision:
            self.grad_scaler = None
        if not (recipe.clipped and recipe.mixed_precision) and type(self).train_step is nnUNetTrainer.train_step:
            raise NotImplementedError(
                f"{type(self).__name__}: nnU-Net's own step clips, and is in mixed precision. As the control of a "
                "published recipe use nnUNetTrainerPublishedSupervised."
            )

    @classmethod
    def recipe_for(cls, hyperparameters: Any) -> Recipe:
        """The recipe of the class; a trainer whose recipe depends on its hyper-parameters overrides this."""
        return cls.recipe

    @classmethod
    def recipe_of(cls, settings: Settings) -> Recipe:
        """The published recipe that the settings name, or that of the trainer."""
        named = settings.training.recipe
        return cls.recipe_for(settings.hyperparameters) if named is None else PUBLISHED[named]

    @classmethod
    def planned_epochs(cls, plans: dict[str, Any]) -> int:
        """Length of training with these plans: the trainer's name, the settings, the recipe, or nnU-Net's own."""
        settings = cls.settings_of(plans)
        recipe = cls.recipe_of(settings)
        return cls.length_variant_epochs or settings.training.num_epochs or recipe.epochs or NNUNET_EPOCHS

    def set_up(self) -> None:
        """Attributes of a subclass: the last thing in construction, so that no class repeats __init__.

        nnU-Net inspects the signature of the constructor and breaks on any other.
        """

    @classmethod
    def check_supported(cls, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]) -> None:
        """Raise NotImplementedError for what a subclass does not support, before anything is written."""

    @classmethod
    def settings_of(cls, plans: dict[str, Any]) -> Settings:
        """The settings of this trainer in a plans dictionary; also for ``build_network_architecture``."""
        return parse_settings(plans, cls.__name__, cls.Hyperparameters)

    def initialize(self) -> None:
        folder = self.preprocessed_dataset_folder
        if not os.path.isdir(folder) or not os.listdir(folder):
            raise complain(
                f"The labelled cases are not preprocessed for configuration {self.configuration_name}: "
                f"{folder} is missing or empty.",
                remedy=f"Run: nnUNetv2_preprocess -d {self.dataset_id} -c {self.configuration_name} "
                f"-plans_name {self.plans_manager.plans_name}",
            )
        if self.seed is not None:
            seed_everything(self.seed + self.local_rank)  # the weights of rank 0 are the ones DDP keeps
        super().initialize()

    @property
    def on_fast_cpu(self) -> bool:
        """The settings ask for what a processor with bfloat16 does fast."""
        return self.cpu_bfloat16 and self.device.type == "cpu"

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        if self.has_deep_supervision:
            super().set_deep_supervision_enabled(enabled)

    @property
    def dataset_id(self) -> int:
        """The number in DatasetXXX_Name, for the commands that messages name."""
        return dataset_id(self.plans_manager.dataset_name)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The recipe's; where that is nnU-Net's, by nnU-Net's own code."""
        freeze_unused_heads(self.network)  # here, since nnU-Net wraps the network for DDP next
        if self.on_fast_cpu:
            for_bfloat16_on_cpu(self.network)
        if self.optimization.is_nnunets:
            return super().configure_optimizers()
        return self.optimization.build(unwrap(self.network), self.initial_lr, self.weight_decay, self.num_epochs)

    def _set_batch_size_and_oversample(self) -> None:
        size = self.recipe_in_force.batch_size_for(len(self.configuration_manager.patch_size))
        if size is not None:
            self.configuration_manager.configuration["batch_size"] = size
        super()._set_batch_size_and_oversample()

    def get_training_transforms(self, *arguments: Any, **options: Any) -> Any:
        """nnU-Net's augmentation, or of a recipe without augmentation nnU-Net's transforms for that."""
        if self.recipe_in_force.augmented:
            return super().get_training_transforms(*arguments, **options)
        return nnUNetTrainerNoDA.get_training_transforms(*arguments, **options)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Any, Any]:
        """nnU-Net's, with the mirroring of training and prediction limited to ``mirror_axes`` and the recipe."""
        rotation, dummy_2d, patch_size, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.mirror_axes is not None:
            axes = tuple(sorted(self.mirror_axes)) or None
            self.inference_allowed_mirroring_axes = axes
        if not self.recipe_in_force.mirrored_prediction:
            self.inference_allowed_mirroring_axes = None
        if not self.recipe_in_force.augmented:
            return rotation, dummy_2d, self.configuration_manager.patch_size, None
        return rotation, dummy_2d, patch_size, axes

    def run_training(self) -> None:
        with self._alone():
            try:
                super().run_training()
            except Exception:  # else the loading workers print tracebacks of their own when this process ends
                self._end_loading()
                raise

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._alone():
            if self.settings.prediction is None:
                super().perform_actual_validation(save_probabilities)
            else:
                validate(self, self.settings.prediction, save_probabilities)

    def _end_loading(self) -> None:
        """As nnU-Net does at the end of a training, whatever state the workers are in."""
        for loader in (self.dataloader_train, self.dataloader_val):
            if hasattr(loader, "_finish"):
                with suppress(Exception), redirect_stdout(None):
                    loader._finish()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process trains in the output folder, where a full disk is told as such."""
        with system_errors(self.output_folder), alone_in(self.output_folder) if self.local_rank == 0 else nullcontext():
            yield

    def split_of_fold(self) -> Fold | None:
        """The labelled, withheld and validation cases of this fold, or ``None`` without a split in the settings."""
        split = self.settings.split
        if split is None:
            return None
        if self.fold == "all":
            raise complain(
                f'Fold "all" trains on every label, but plans "{self.plans_manager.plans_name}" name split "{split}".',
                remedy="Choose a numbered fold, or plans without a split (-p).",
            )
        known = infer_dataset_class(self.preprocessed_dataset_folder).get_identifiers(self.preprocessed_dataset_folder)
        fold = load_fold(self.preprocessed_dataset_folder_base, split, self.fold, known_cases=known)
        if self._fold_of_checkpoint not in (None, asdict(fold)):
            raise complain(
                f'Split "{split}" has changed since this training began: fold {self.fold} has other cases now, so that '
                "cases already trained on could be validated.",
                remedy="Bring the former splits_ssl.json back, or train anew without --c.",
            )
        return fold

    def do_split(self) -> tuple[list[str], list[str]]:
        """(labelled training cases, validation cases); nnU-Net's own split without a split in the settings."""
        fold = self.split_of_fold()
        if fold is None:
            return super().do_split()
        self.print_to_log_file(
            f'Split "{self.settings.split}", fold {self.fold}: {len(fold.labeled)} labelled, {len(fold.unlabeled)} '
            f"withheld and {len(fold.val)} validation cases."
        )
        return list(fold.labeled), list(fold.val)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, with a warning of classes that cannot be learnt; the labels of other cases stay unread."""
        training, validation = super().get_tr_and_val_datasets()
        for dataset in (training, validation):
            dataset.ends_with_parent = EndsWithParent()  # nnU-Net's loading workers outlive a killed training run
        for warning in unlearnable(self.plans_manager, self.dataset_json, training, self.fold):
            self.print_to_log_file("WARNING:", warning)
        return training, validation

    def on_train_start(self) -> None:
        super().on_train_start()
        settings = self.settings_in_force()
        self.print_to_log_file("Settings in force:", settings, add_timestamp=False)
        self.logger.update_config({BLOCK: settings})
        if self._random_state_to_restore is not None:
            # only now: building the loaders has drawn random numbers that the uninterrupted run did not draw
            set_random_state(self._random_state_to_restore, self.device)
            self._random_state_to_restore = None

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.check_weights()

    def trained_modules(self) -> dict[str, nn.Module]:
        """Whatever the optimiser changes, by a name for messages."""
        return {"network": self.network}

    def check_weights(self) -> None:
        """Before the epoch is validated and saved: nothing that these weights give can be used or continued.

        Raises:
            SemiSupervisedError: a weight is infinite or not a number.
        """
        finite = {
            name: torch.stack([p.detach().isfinite().all() for p in module.parameters()]).all()
            for name, module in self.trained_modules().items()
        }
        if torch.stack([*finite.values()]).all():
            return
        epoch, file = self.current_epoch, os.path.join(self.output_folder, "checkpoint_latest.pth")
        raise complain(
            f"The training has diverged in epoch {epoch}: weights are infinite or not numbers any more. It stops here, "
            "and this epoch is not saved.",
            [f"{name} of {self.output_folder}" for name, fine in finite.items() if not fine],
            f"Make the plans again with a smaller step, such as nnunet_ssl plans ... --overwrite --training "
            f"initial_lr={self.initial_lr / 3:.2g} and so on, and train anew; semi_supervised.csv shows which term grew"
            f". {file}, if it is there, is of an earlier epoch: --c continues from it.",
        )

    def on_epoch_end(self) -> None:
        """Kept before nnU-Net's own checkpoints, so that a training continued from one of these lacks none."""
        if self.current_epoch + 1 in (self.kept_epochs or ()):
            self.save_checkpoint(os.path.join(self.output_folder, kept_checkpoint(self.current_epoch + 1)))
        super().on_epoch_end()

    def settings_in_force(self) -> dict[str, Any]:
        """Plain Python, for the log and the checkpoint."""
        apart = ("optimizer", "recipe")
        training = {name: getattr(self, name) for name in asdict(self.settings.training) if name not in apart}
        training["optimizer"] = self.optimization.name
        if self.settings.training.recipe is not None:
            training["recipe"] = self.settings.training.recipe
        return {
            "split": self.settings.split,
            "training": training,
            "hyperparameters": asdict(self.hyperparameters),
        }

    def extra_state(self) -> dict[str, Any]:
        """What stands under this package's key in a checkpoint: tensors and plain Python only.

        nnU-Net unpickles a checkpoint before it looks for the trainer, also where this package is not installed.
        """
        fold = self.split_of_fold()
        return {
            "version": CHECKPOINT_VERSION,
            "settings": self.settings_in_force(),
            "fold": asdict(fold) if fold else None,
            "random_state": random_state(self.device),
        }

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`extra_state`.

        Raises:
            SemiSupervisedError: the split has other cases now, or a later version of this package wrote the state.
        """
        check_version(state["version"])
        before, now = state["settings"], self.settings_in_force()
        for change in changed_settings(before, now):
            self.print_to_log_file(f"WARNING: {change}")
        if before["split"] == now["split"]:
            self._fold_of_checkpoint = state["fold"]
            self.split_of_fold()
        if not self.is_ddp:  # the file holds the state of rank 0; the others must not repeat its random numbers
            self._random_state_to_restore = state["random_state"]

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint plus our key, written to a temporary file and renamed."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        checkpoint = what_is_saved(super().save_checkpoint)  # whatever nnU-Net puts in, without a list of its keys here
        checkpoint[BLOCK] = self.extra_state()
        write_atomically(checkpoint, filename)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint of the same trainer.

        Raises:
            SemiSupervisedError: the file was written by another trainer.
        """
        extra = read_extra_state(filename_or_checkpoint, type(self).__name__, BLOCK)
        super().load_checkpoint(filename_or_checkpoint)
        self._resumed = True
        self.load_extra_state(extra)
