"""How far a training is, from what nnU-Net prints."""

from __future__ import annotations

import os
import re
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from nnunet_ssl.training.settings import LENGTH_VARIANT

NNUNET_EPOCHS = 1000
EPOCH = re.compile(r": Epoch (\d+)\s*$")
EPOCH_TIME = re.compile(r"Epoch time: ([\d.]+) s")
VALIDATION = re.compile(r": predicting \S+\s*$")


def number_of_epochs(trainer: str, settings: dict[str, Any]) -> int:
    """Length of a training: the trainer's name, the settings, or nnU-Net's own."""
    match = LENGTH_VARIANT.match(trainer)
    return int(match["epochs"] if match else settings.get("training", {}).get("num_epochs") or NNUNET_EPOCHS)


@dataclass
class TrainingLog:
    """Follows a log file.

    Attributes:
        path: of the file.
        epochs: length of the training.
        done: finished epochs.
        validating: whether the final validation has begun.
    """

    path: str
    epochs: int
    done: int = 0
    validating: bool = False
    _times: deque[float] = field(default_factory=lambda: deque(maxlen=20))
    _offset: int = 0

    def read(self) -> None:
        """Take in what was written since the last call."""
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:  # begun anew
                    self._offset = 0
                file.seek(self._offset)
                new = file.read()
        except OSError:
            return
        whole = new.rfind(b"\n") + 1  # the last line may still be half a line
        self._offset += whole
        for line in new[:whole].decode(errors="replace").splitlines():
            if match := EPOCH.search(line):
                self.done = int(match[1])
            elif match := EPOCH_TIME.search(line):
                self.done += 1
                self._times.append(float(match[1]))
            elif VALIDATION.search(line):
                self.validating = True

    @property
    def seconds_left(self) -> float | None:
        """Of the training, without the final validation; None before the first epoch is over."""
        return (self.epochs - self.done) * statistics.median(self._times) if self._times else None
