"""All or nothing: undo of what was done to several modules if an error occurs on the way."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize


@contextmanager
def unchanged_on_error(modules: Iterable[nn.Module], values: bool = False) -> Iterator[None]:
    """Context manager that restores the modules if the block raises: class, attributes, parameters, their order.

    Dense parameters and buffers get back the memory, and so the shape, that they had.

    Parameters
    ----------
    modules
        The modules; not their children.
    values
        Whether values that were written in place are restored too, from a copy of all tensors.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> try:
    ...     with unchanged_on_error([layer]):
    ...         del layer.weight
    ...         raise KeyError
    ... except KeyError:
    ...     print(list(layer.state_dict()))
    ['weight', 'bias']
    """
    before = [_Snapshot(module, values) for module in modules]
    try:
        yield
    except BaseException:
        for snapshot in reversed(before):
            snapshot.restore()
        raise


class _Snapshot:
    """Class, attributes and tensors of a module, with the contents of its dictionaries and of its parametrizations."""

    def __init__(self, module: nn.Module, values: bool) -> None:
        self.module, self.kind, self.members = module, type(module), set(vars(type(module)))
        self.attributes = dict(vars(module))
        owners = [module]
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if parametrize.is_parametrized(module):
            owners.append(module.get_submodule("parametrizations"))
            tensors += [*owners[-1].parameters(), *owners[-1].buffers()]
        tensors = [tensor for tensor in tensors if not is_lazy(tensor) and tensor.layout == torch.strided]
        containers = [each for owner in owners for each in vars(owner).values() if isinstance(each, dict | set)]
        self.contents: list[tuple[Any, Any]] = [(each, each.copy()) for each in containers]
        self.memory = [(tensor, tensor.detach()) for tensor in tensors]
        self.values = [(tensor, tensor.detach().clone()) for tensor in tensors] if values else []

    def restore(self) -> None:
        """Undo all changes since the snapshot."""
        self.module.__class__ = self.kind
        for name in set(vars(self.kind)) - self.members:
            if isinstance(vars(self.kind)[name], property):  # added by torch to the class
                delattr(self.kind, name)
        vars(self.module).clear()
        vars(self.module).update(self.attributes)
        for container, content in self.contents:
            container.clear()
            container.update(content)
        with torch.no_grad():
            for tensor, before in self.memory:
                if not _is_same_memory(tensor, before):  # torch gives the raw values to the tensor it parametrizes
                    tensor.set_(before)  # type: ignore[call-overload]
            for tensor, before in self.values:
                tensor.copy_(before)


def _is_same_memory(tensor: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape, strides and memory."""
    layout = (tensor.shape, tensor.stride()) == (other.shape, other.stride())
    return layout and (tensor.is_meta or tensor.data_ptr() == other.data_ptr())
