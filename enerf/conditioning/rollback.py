"""All or nothing: undo of what was done to several modules if an error occurs on the way."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.utils import parametrize


@contextmanager
def unchanged_on_error(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Context manager that restores the modules if the block raises: class, attributes, parameters, their order.

    Values of tensors are not copied: what is written in place stays.

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
    before = [_Snapshot(module) for module in modules]
    try:
        yield
    except BaseException:
        for snapshot in reversed(before):
            snapshot.restore()
        raise


class _Snapshot:
    """Class and attributes of a module, with the contents of its dictionaries and of its parametrizations."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind, self.members = module, type(module), set(vars(type(module)))
        self.attributes = dict(vars(module))
        owners = [module]
        if parametrize.is_parametrized(module):
            owners.append(module.get_submodule("parametrizations"))
        containers = [each for owner in owners for each in vars(owner).values() if isinstance(each, dict | set)]
        self.contents: list[tuple[Any, Any]] = [(each, each.copy()) for each in containers]

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
