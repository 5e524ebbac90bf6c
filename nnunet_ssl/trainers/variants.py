"""Length variants ``<trainer>_<N>epochs`` of every semi-supervised trainer, made on demand and only once.

They live in this module, so that a spawned process that unpickles one finds it by name.
"""

from __future__ import annotations

from functools import cache

from nnunet_ssl.trainers import find_trainer
from nnunet_ssl.training.settings import LENGTH_VARIANT


@cache
def length_variant(base: str, epochs: int) -> type:
    """The trainer ``base`` with a fixed number of epochs; the same class at every call."""
    trainer = find_trainer(base)
    attributes = {
        "__module__": __name__,
        "__doc__": f"{base}, trained for {epochs} epochs.",
        "length_variant_epochs": epochs,
    }
    return type(f"{base}_{epochs}epochs", (trainer,), attributes)


def __getattr__(name: str) -> type:
    if LENGTH_VARIANT.match(name):
        return find_trainer(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
