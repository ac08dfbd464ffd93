"""Base class of modules whose linear layers are evaluated together as one dense network, by an exchangeable backend.

The layers remain ``nn.Linear`` submodules, so checkpoints, conditioning and spectra do not depend on the backend.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from enerf.fields.backends import dense
from enerf.fields.backends.dense import Bind, Bound, Network


class NetworkModule(nn.Module, ABC):
    """A module that evaluates ``network`` with the weights and biases of ``linears()``.

    Attributes
    ----------
    network
        The network, set by the subclass.
    bind
        The backend; by default the reference implementation in torch.
    """

    network: Network

    def __init__(self) -> None:
        super().__init__()
        self.bind: Bind = dense.bind
        self._frozen: Bound | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State for copies, without frozen weights: these refer to the parameters of this module."""
        return {**self.__dict__, "_frozen": None}

    @abstractmethod
    def linears(self) -> list[nn.Linear]:
        """The linear layers, in the order of ``network.layers``."""

    def bound(self) -> Bound:
        """The network with its current weights, or with those cached by ``freeze``."""
        if self._frozen is not None:
            return self._frozen
        layers = self.linears()
        return self.bind(self.network, [layer.weight for layer in layers], [layer.bias for layer in layers])

    def freeze(self) -> None:
        """Read (and, for some backends, pack) the weights now, and use them in every call until ``unfreeze``."""
        self._frozen = None
        self._frozen = self.bound()

    def unfreeze(self) -> None:
        """Read the weights in every call again."""
        self._frozen = None


def freeze(model: nn.Module) -> None:
    """Cache the current weights of every ``NetworkModule`` in a model for evaluation; no gradient flags change."""
    for part in _network_modules(model):
        part.freeze()


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Context manager: ``freeze`` a model, and unfreeze it on exit."""
    try:
        freeze(model)
        yield
    finally:
        for part in _network_modules(model):
            part.unfreeze()


def _network_modules(model: nn.Module) -> list[NetworkModule]:
    return [part for part in model.modules() if isinstance(part, NetworkModule)]
