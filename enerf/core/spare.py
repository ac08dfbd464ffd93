"""Memory of large gradients, kept from one training step for the next.

malloc gives arrays above 32 MiB back to the system when they are freed, and the pages of the next one have to be mapped
and cleared again, which takes longer than all other work on the gradient of a large hash grid.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

LARGE = 32 << 20  # bytes; the limit of core.device.keep_memory
_kept = WeakIdKeyDictionary()  # parameter -> what was its gradient


def keep(parameters: Iterable[Tensor]) -> None:
    """Take the large gradients of parameters on the CPU away, to be used again with other values."""
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None and grad.device.type == "cpu" and grad.numel() * grad.element_size() >= LARGE:
            _kept[parameter] = grad
            parameter.grad = None


def empty_like(parameter: Tensor) -> Tensor:
    """An array for the gradient of a parameter, of any values: the one that was kept, if it has the same form.

    It is given away once, so that whoever accumulates gradients owns it.
    """
    grad = _kept.pop(parameter, None)
    if grad is not None and (_form(grad) == _form(parameter)):
        found: Tensor = grad
        return found
    return torch.empty_like(parameter)


def _form(x: Tensor) -> tuple[object, ...]:
    return x.shape, x.stride(), x.dtype, x.device
