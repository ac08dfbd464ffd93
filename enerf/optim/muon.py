"""Muon, which orthogonalizes the update of a matrix, with steps of Adam's size.

The momentum of each matrix is replaced by an approximation of its polar factor U Vᵀ, by five iterations of
Newton–Schulz (Jordan et al., Muon, 2024, kellerjordan.github.io/posts/muon), so that all singular values of the update
are about equal, whatever those of the gradient are. Meant for the hidden matrices of a network; inputs, outputs, biases
and gains are left to Adam.
"""

from collections.abc import Sequence

import torch
from torch import nn

MOMENTUM, ITERATIONS = 0.95, 5


def muon(matrices: Sequence[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """``torch.optim.Muon`` without weight decay, with Nesterov momentum 0.95.

    The update of an n_out × n_in matrix is multiplied by 0.2·√max(n_out, n_in), so that its root mean square is 0.2, as
    is typical of Adam, and ``lr`` is a rate for Adam (Liu et al., Muon is scalable for LLM training, arXiv 2502.16982,
    section 2.2).

    Parameters
    ----------
    matrices
        Parameters with two axes.
    lr
        Learning rate.

    Raises
    ------
    ImportError
        If this torch has no Muon.
    ValueError
        If a parameter has another number of axes.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(f"Muon needs torch 2.9 or later, and this is torch {torch.__version__}")
    found: torch.optim.Optimizer = torch.optim.Muon(
        [*matrices],
        lr=lr,
        weight_decay=0.0,
        momentum=MOMENTUM,
        nesterov=True,
        ns_steps=ITERATIONS,
        adjust_lr_fn="match_rms_adamw",
    )
    return found
