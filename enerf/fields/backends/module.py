"""Base class of modules whose linear layers are evaluated together as one dense network, by an exchangeable backend.

The layers remain ``nn.Linear`` submodules, so checkpoints, conditioning and spectra do not depend on the backend.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from enerf.fields import activations, normalization
from enerf.fields.backends import dense
from enerf.fields.backends.dense import Bind, Bound, Network


class NetworkModule(nn.Module, ABC):
    """A module that evaluates ``network`` with the weights and biases of ``linears()``.

    Attributes
    ----------
    network
        The network, set by the subclass.
    bind, precision
        The backend, by default the reference implementation in torch, and its precision.
    norms
        Normalizations before the activations, or None; see ``fields.normalization``.
    """

    network: Network

    def __init__(self) -> None:
        super().__init__()
        self.bind: Bind = dense.bind
        self.precision = "fp32"
        self.norms: normalization.Norms | None = None
        self._frozen: Bound | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State for copies, without frozen weights: these refer to the parameters of this module."""
        return {**self.__dict__, "_frozen": None}

    @abstractmethod
    def linears(self) -> list[nn.Linear]:
        """The linear layers, in the order of ``network.layers``."""

    def bound(self) -> Bound:
        """The network with its current weights, or with those cached by ``freeze``."""
        return self.bind_layers(self.network, self.linears()) if self._frozen is None else self._frozen

    def bind_layers(self, network: Network, layers: Sequence[nn.Linear], *, folds: bool = False) -> Bound:
        """A network of ReLU layers with their current weights, and the normalizations of layers with the same numbers.

        Networks with normalization are evaluated by torch. ``folds``: batch normalization in evaluation mode becomes
        part of the weights, and the network is evaluated by the backend.
        """
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        if self.norms is None:
            return self.bind(network, weights, biases)
        folded = normalization.folded(weights, biases, self.norms) if folds else None
        if folded is not None:
            return self.bind(network, *folded)
        return activations.bind(network, weights, biases, norms=self.norms, precision=self.precision)

    def freeze(self) -> None:
        """Read (and, for some backends, pack) the weights now, and use them in every call until ``unfreeze``."""
        self._frozen = self._to_freeze()

    def _to_freeze(self) -> Bound:
        """What ``freeze`` caches."""
        return self.bind_layers(self.network, self.linears(), folds=True)

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


def add_normalization(model: nn.Module, kind: str) -> None:
    """Add normalizations before all hidden activations of every ``NetworkModule`` in a model.

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    for part in _network_modules(model):
        part.norms = normalization.norms_of(part.network, kind)


def _network_modules(model: nn.Module) -> list[NetworkModule]:
    return [part for part in model.modules() if isinstance(part, NetworkModule)]
