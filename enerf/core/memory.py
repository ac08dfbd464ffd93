"""Memory that a run needs at least, checked before it is allocated.

A task estimates the bytes of its parts, each named by the options that decide it. Estimates are lower bounds, so that
nothing is refused that works: what they leave out (temporary arrays, the libraries) is less than what they count.
"""

from collections.abc import Mapping

import torch
from torch import nn

from enerf.core import files
from enerf.core.errors import InputError

TRAINED_PARAMETER = 16  # bytes in fp32 of a parameter, its gradient and Adam's two moments


def require(needs: Mapping[str, int], device: torch.device) -> None:
    """Check that the parts of a run fit the memory of its device together.

    Parameters
    ----------
    needs
        Options that decide a part -> its bytes.
    device
        Where they will be allocated; for a GPU its whole memory counts, since other programs may release theirs.

    Raises
    ------
    InputError
        If they do not; the message names the largest part.
    """
    available = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else files.available_memory()
    total, largest = sum(needs.values()), max(needs, key=lambda part: needs[part])
    if total > available:
        raise InputError(
            f"{largest}: found values that need {files.format_bytes(needs[largest])} of memory, and the whole run at "
            f"least {files.format_bytes(total)}; expected at most the {files.format_bytes(available)} available on "
            f"{device}"
        )


def trained_bytes(model: nn.Module) -> int:
    """Bytes for training the parameters of a model with Adam; it may be one on the device ``meta``.

    >>> trained_bytes(nn.Linear(9, 1))
    160
    """
    return TRAINED_PARAMETER * sum(parameter.numel() for parameter in model.parameters())
