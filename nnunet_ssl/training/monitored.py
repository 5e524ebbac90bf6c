"""What a person can follow during training: log, CSV, PNG and warnings."""

from __future__ import annotations

import math

from torch import Tensor

from nnunet_ssl.data.batches import LabeledBatch
from nnunet_ssl.data.streams import UNKNOWN_LABEL
from nnunet_ssl.training import pseudo_labels
from nnunet_ssl.training.monitor import LOSS, PREFIX, WEIGHT, Monitor, draw_png, history, register, write_csv
from nnunet_ssl.training.two_streams import nnUNetTrainerTwoStreams

OBSERVE_EVERY = 10  # steps between two looks at the pseudo-labels


class nnUNetTrainerMonitored(nnUNetTrainerTwoStreams):
    """Collects loss terms, weights and pseudo-label monitors and reports them once per epoch."""

    def set_up(self) -> None:
        super().set_up()
        self.monitor = Monitor(self.device)
        self._step = 0
        self._warned: set[str] = set()

    @property
    def progress(self) -> float:
        """(epoch + step / steps) / epochs, in [0, 1]: what every ramp and schedule is a function of."""
        return (self.current_epoch + self._step / self.num_iterations_per_epoch) / self.num_epochs

    @property
    def iteration(self) -> int:
        """Optimiser steps taken since the start of training, also after a resume."""
        return self.current_epoch * self.num_iterations_per_epoch + self._step

    def weigh(self, name: str, loss: Tensor, weight: float) -> Tensor:
        """weight * loss, with the weight on record."""
        self.monitor.add(WEIGHT + name, weight)
        return weight * loss

    def observe_pseudo_labels(self, student: Tensor, teacher: Tensor, valid: Tensor) -> None:
        """Log coverage, agreement and foreground of the pseudo-labels, every few steps and without synchronising.

        Args:
            student, teacher: logits (B_U, K, *P) of the same voxels.
            valid: (B_U, 1, *P) bool.
        """
        if self._step % OBSERVE_EVERY:
            return
        regions = self.label_manager.has_regions
        for name, value in pseudo_labels.describe(student, teacher, valid, regions).items():
            self.monitor.add(name, value)
        if self._withheld_label is not None:
            label = self._withheld_label
            known = valid & (label != UNKNOWN_LABEL)
            if self.label_manager.has_ignore_label:
                known &= label != self.label_manager.ignore_label
            classes = self.label_manager.foreground_regions if regions else self.label_manager.foreground_labels
            values = [c if isinstance(c, (tuple, list)) else (c,) for c in classes]
            self.monitor.add("true_dice", *pseudo_labels.true_dice(teacher, label, known, values, regions))

    def _observe_labels(self, labeled: LabeledBatch) -> None:
        if self._step % OBSERVE_EVERY == 0:
            target = labeled.target[0] if isinstance(labeled.target, list) else labeled.target
            foreground, annotated = pseudo_labels.annotated_foreground(target, self.label_manager)
            self.monitor.add("labeled_foreground", foreground.sum() / annotated.sum().clamp(min=1))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step = 0

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        means = self.monitor.epoch_means()
        logging = self.logger.local_logger.my_fantastic_logging
        known = {key for key in logging if key.startswith(PREFIX)}
        for key in sorted(known | {PREFIX + name for name in means}):
            register(logging, key, self.current_epoch)
            self.logger.log(key, means.get(key.removeprefix(PREFIX), math.nan), self.current_epoch)
        self._report(means)

    def _report(self, means: dict[str, float]) -> None:
        self.print_to_log_file("semi-supervised:", ", ".join(f"{name} {value:.4g}" for name, value in means.items()))
        for name, value in means.items():
            term = name.removeprefix(LOSS)
            if name.startswith(LOSS) and value == 0 and means.get(WEIGHT + term, 1.0) > 0:
                self._warn_once(f"The loss term {term} was exactly zero in every step of this epoch.")
        foreground, labeled = means.get("foreground", math.nan), means.get("labeled_foreground", math.nan)
        if self.progress > 0.2 and foreground < 0.02 * labeled:
            self._warn_once(
                f"The pseudo-labels have collapsed to background: {foreground:.2g} of the unlabelled voxels are "
                f"foreground, against {labeled:.2g} of the labelled ones."
            )

    def _warn_once(self, message: str) -> None:
        kind = message.split(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            self.print_to_log_file("WARNING:", message)

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.local_rank == 0:
            table = history(self.logger.local_logger.my_fantastic_logging)
            write_csv(table, self.output_folder)
            draw_png(table, self.output_folder)
