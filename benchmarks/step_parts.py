"""Seconds of the parts of training steps: loader, views, forward, backward and optimiser.

A part that is made inside another counts alone: a strong view drawn by the losses belongs to the views.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

LOADER, VIEWS, FORWARD, BACKWARD, OPTIMISER = PARTS = ("loader", "views", "forward", "backward", "optimiser")


class StepParts:
    """Clock of the steps of one trainer.

    What lies behind the backward pass, clipping and teachers included, is the optimiser's.

    Args:
        trainer: of nnU-Net or of this package, initialised.
        next_batch: gives the batch of a step, as a loader does.

    Attributes:
        seconds: of each part, summed over the steps taken.
        steps: taken.
    """

    def __init__(self, trainer: Any, next_batch: Callable[[], dict[str, Any]]) -> None:
        self.trainer, self.next_batch = trainer, next_batch
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.steps = 0
        self._part, self._since = FORWARD, 0.0
        streams = getattr(trainer, "streams", None)
        if streams is not None:
            trainer.split_batch = self._as_views(trainer.split_batch)
            if streams.strong_view is not None:
                streams.strong_view = self._as_views(streams.strong_view)

    def step(self) -> None:
        """One training step, on the clock."""
        self._begin(LOADER)
        batch = self.next_batch()
        self._switch(FORWARD)
        backward = torch.Tensor.backward

        def timed(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
            self._switch(BACKWARD)
            backward(tensor, *args, **kwargs)
            self._switch(OPTIMISER)

        with patch.object(torch.Tensor, "backward", timed):
            self.trainer.train_step(batch)
        self._switch(FORWARD)
        self.steps += 1

    def means(self) -> dict[str, float]:
        """Seconds per step of each part."""
        return {part: seconds / max(self.steps, 1) for part, seconds in self.seconds.items()}

    def _as_views(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            with self._inside(VIEWS):
                return call(*args)

        return timed

    @contextmanager
    def _inside(self, part: str) -> Iterator[None]:
        around = self._part
        self._switch(part)
        yield
        self._switch(around)

    def _begin(self, part: str) -> None:
        self._part, self._since = part, self._now()

    def _switch(self, part: str) -> None:
        now = self._now()
        self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def _now(self) -> float:
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()
