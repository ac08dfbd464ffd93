"""SOAP, Adam in the eigenbasis of Shampoo's preconditioner, from the package pytorch-optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

PRECONDITION_FREQUENCY = 10


def soap(
    matrices: Sequence[nn.Parameter],
    lr: float | int,
    weight_decay: float | int = 0.0,
    views: Mapping[nn.Parameter, Any] | None = None,
) -> torch.optim.Optimizer:
    """``pytorch_optimizer.SOAP`` with decoupled weight decay; eigenbases are renewed at every tenth step.

    Parameters
    ----------
    matrices
        Parameters with two axes.
    lr
        Learning rate, of Adam's scale.
    weight_decay
        Decoupled weight decay.
    views
        Not used: packed projections of attention are preconditioned as one matrix.

    Raises
    ------
    ImportError
        If the package is not installed.
    ValueError
        If a parameter has another number of axes.

    References
    ----------
    Vyas et al., SOAP: improving and stabilizing Shampoo using Adam, ICLR 2025, arXiv 2409.11321.
    """
    try:
        from pytorch_optimizer import SOAP
    except ImportError:
        raise ImportError(
            "SOAP needs the package pytorch-optimizer: pip install 'enerf[soap]'; muon needs no package"
        ) from None
    for each in matrices:
        if each.dim() != 2:
            raise ValueError(f"a parameter has shape {tuple(each.shape)}; soap takes parameters with two axes")
    found: torch.optim.Optimizer = SOAP(
        [*matrices], lr=lr, weight_decay=weight_decay, precondition_frequency=PRECONDITION_FREQUENCY
    )
    return found
