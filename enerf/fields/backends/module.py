"""Modules that are one dense network: their linear layers are evaluated together, by a backend that is chosen outside.

The module keeps its layers as torch's own, under their names, so that checkpoints, conditioning and spectra see nothing
of the backend: a checkpoint made with one loads with every other.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from enerf.fields.backends import dense
from enerf.fields.backends.dense import Bind, Bound, Network


class Networked(nn.Module, ABC):
    """A module whose values are those of ``network`` with the weights of ``linears()``.

    Attributes
    ----------
    network
        What is computed, set by the subclass.
    bind
        The backend; torch's twin unless another is set.
    """

    network: Network

    def __init__(self) -> None:
        super().__init__()
        self.bind: Bind = dense.bind
        self._held: Bound | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over: not the held weights, which are those of this module."""
        return {**self.__dict__, "_held": None}

    @abstractmethod
    def linears(self) -> list[nn.Linear]:
        """The linear layers, in the order of ``network.layers``."""

    def bound(self) -> Bound:
        """The network with the weights as they are now, or as they were when they were held."""
        if self._held is not None:
            return self._held
        layers = self.linears()
        return self.bind(self.network, [layer.weight for layer in layers], [layer.bias for layer in layers])

    def hold(self) -> None:
        """From now on the present weights count, and are read (and packed, by some backends) only this once."""
        self._held = None
        self._held = self.bound()

    def release(self) -> None:
        """Weights are read at every call again."""
        self._held = None


def hold(model: nn.Module) -> None:
    """Hold the weights of every ``Networked`` module of a model."""
    for part in _networked(model):
        part.hold()


@contextmanager
def held(model: nn.Module) -> Iterator[None]:
    """Within, the weights of every ``Networked`` module of a model are held."""
    try:
        hold(model)
        yield
    finally:
        for part in _networked(model):
            part.release()


def _networked(model: nn.Module) -> list[Networked]:
    return [part for part in model.modules() if isinstance(part, Networked)]
