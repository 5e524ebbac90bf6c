"""The features that a layer of a network sees, without another forward and without another network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Tap:
    """Keeps what a layer is called with, with its gradient, during a forward within :meth:`open`.

    Args:
        layer: of a network, not wrapped. What is called is the wrapper around the network, as always.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._open = False
        self._kept: Any = None
        layer.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self._open:
            self._kept = inputs[0]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Forwards inside are listened to."""
        self._open = True
        try:
            yield
        finally:
            self._open = False

    def take(self) -> Any:
        """The first argument of the layer in the last forward that was listened to, once."""
        kept, self._kept = self._kept, None
        if kept is None:
            raise RuntimeError("no forward was listened to")
        return kept


class FeatureTap(Tap):
    """Of the last segmentation layer: the features (B, channels, *P).

    Args:
        network: with ``decoder.seg_layers``, as nnU-Net's U-Nets and :class:`CMAformer`; not wrapped.

    Raises:
        NotImplementedError: any other network.
    """

    def __init__(self, network: nn.Module) -> None:
        layers = getattr(getattr(network, "decoder", None), "seg_layers", None)
        if not isinstance(layers, nn.ModuleList):
            raise NotImplementedError(
                f"{type(network).__name__} has no decoder with segmentation layers, as nnU-Net's U-Nets have, so that "
                "there are no last features from which to learn."
            )
        self.channels: int = layers[-1].in_channels  # type: ignore[assignment]
        super().__init__(layers[-1])


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
