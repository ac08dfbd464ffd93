"""Tensors that are distributed over processes."""

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is distributed over processes (DTensor, as of FSDP2), told without importing DTensor."""
    return hasattr(tensor, "device_mesh")
