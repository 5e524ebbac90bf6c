"""How far a training is, from what nnU-Net prints."""

from __future__ import annotations

import os
import re
import statistics
from collections import deque
from dataclasses import dataclass, field

EPOCH = re.compile(r": Epoch (\d+)\s*$")
EPOCH_TIME = re.compile(r"Epoch time: ([\d.]+) s")
VALIDATION = re.compile(r": predicting \S+\s*$")


@dataclass
class TrainingLog:
    """Follows a log file.

    Attributes:
        path: of the file.
        epochs: length of the training run; None where the manifest of an earlier version does not say.
        done: finished epochs.
        validating: whether the final validation has begun.
    """

    path: str
    epochs: int | None
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
        """Of the training, without the final validation; None before the first epoch is over, or without length."""
        if self.epochs is None or not self._times:
            return None
        return (self.epochs - self.done) * statistics.median(self._times)
