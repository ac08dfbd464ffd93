"""SOAP, Adam in the eigenbasis of Shampoo's preconditioner, from the package pytorch-optimizer."""

from collections.abc import Sequence

import torch
from torch import nn

PRECONDITION_FREQUENCY = 10


def soap(matrices: Sequence[nn.Parameter], lr: float | int, weight_decay: float | int = 0.0) -> torch.optim.Optimizer:
    """``pytorch_optimizer.SOAP`` with decoupled weight decay; eigenbases are renewed at every tenth step.

    Parameters
    ----------
    matrices
        Parameters with two axes.
    lr
        Learning rate, of Adam's scale.
    weight_decay
        Decoupled weight decay.

    Raises
    ------
    ImportError
        If the package is not installed.

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
    found: torch.optim.Optimizer = SOAP(
        [*matrices], lr=lr, weight_decay=weight_decay, precondition_frequency=PRECONDITION_FREQUENCY
    )
    return found
