"""Base class of parametrizations, by which ``bake`` and others know those of this package from those of others."""

from numbers import Real
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize


class Parametrization(nn.Module):
    """A parametrization that ``condition`` applies.

    Attributes
    ----------
    method
        The method that it belongs to.
    """

    method: str


def parametrized_tensors(module: nn.Module) -> dict[str, Any]:
    """Name -> parametrization list, of each parametrized tensor of this module, not of those inside."""
    if not parametrize.is_parametrized(module):
        return {}
    return dict(module.get_submodule("parametrizations").named_children())


def raw_weight(item: nn.Module) -> Tensor | None:
    """The raw tensor of a parametrization list: of weight normalization the directions; None if there are several."""
    is_weight_norm = "weight_norm" in map(known_method, item.children())
    return getattr(item, "original1" if is_weight_norm else "original", None)


def leave_shared_class(module: nn.Module) -> None:
    """Give a parametrized module a separate copy of its class.

    torch stores a parametrized tensor as a property of a class that it makes for the module. A deep copy shares that
    class, and parametrizing another tensor of the copy, or removing a parametrization, would change the property of the
    original too. torch has no way to give a copy a class of its own, so the attribute is assigned, as torch itself does
    when it parametrizes a module and again when it removes the last parametrization (the class is then the one it had
    before).
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        members = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, members)


def require_module(model: object, word: str = "model") -> None:
    """Raise a TypeError unless the model is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"the {word} is a {type(model).__name__}; expected a torch.nn.Module")


def require_number(option: str, value: object, expected: str) -> None:
    """Raise a TypeError unless the value of an option is a real number."""
    if not isinstance(value, Real):
        raise TypeError(f"{option} is {value!r}; expected {expected}")


def is_foreign(item: nn.Module) -> bool:
    """Whether no parametrization of the list is one that ``condition`` has applied."""
    return all(method_of(step) is None for step in item.children())


def method_of(step: nn.Module) -> str | None:
    """The method of a parametrization that ``condition`` has applied, else None."""
    return step.method if isinstance(step, Parametrization) else None


def known_method(step: nn.Module) -> str | None:
    """As ``method_of``, also of torch's weight norm and spectral norm, whoever has applied them."""
    names = {parametrizations._WeightNorm: "weight_norm", parametrizations._SpectralNorm: "spectral_norm"}
    return method_of(step) or next((name for kind, name in names.items() if isinstance(step, kind)), None)
