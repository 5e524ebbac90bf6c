"""The features that a layer of a network sees, without another forward and without another network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class FeatureTap:
    """Keeps the input of the last segmentation layer, with its gradient, during a forward within :meth:`open`.

    Args:
        network: with ``decoder.seg_layers``, as nnU-Net's U-Nets and :class:`CMAformer`; not wrapped. What is called is
            the wrapper around it, as always.

    Raises:
        NotImplementedError: any other network.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise NotImplementedError(
                f"{type(network).__name__} has no decoder with segmentation layers, as nnU-Net's U-Nets have, so that "
                "there are no features from which to learn signed distances."
            )
        self.channels: int = layers[-1].in_channels  # type: ignore[assignment]
        self._open = False
        self._features: Tensor | None = None
        layers[-1].register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._open:
            self._features = inputs[0]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Forwards inside are listened to."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def take(self) -> Tensor:
        """The features (B, channels, *P) of the last forward that was listened to, once."""
        features, self._features = self._features, None
        if features is None:
            raise RuntimeError("no forward was listened to")
        return features


@contextmanager
def input_of_last(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the layer that runs last within the block is called with, as the only element; empty where none runs.

    Nothing stays on the layers behind the block, so that a network under torch.compile does not know of it.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [inputs[0]]

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
