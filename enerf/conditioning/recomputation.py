"""Activation checkpointing: the second forward pass that ``torch.utils.checkpoint`` runs inside the backward pass.

It must compute what the first one did, so state that changes at each forward pass (counters, running averages) must not
change again.
"""

import torch


def is_recomputed() -> bool:
    """Whether the current forward pass is run inside a backward pass, as checkpointing does; False while compiling."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
