"""CUDA graph of a gradient computation: recorded once, then replayed with a single launch.

With small batches on a GPU, launching the kernels one by one takes longer than running them. A graph has fixed
addresses, so rays and target colors are copied into its input buffers; weights, gradients and the generator are those
it was recorded with. The speedup has not been measured on a GPU yet.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from enerf.core.types import Rays

log = logging.getLogger("enerf")

WARMUP_STEPS = 3  # eager calls before the recording, as PyTorch's documentation requires
# rays, target -> the figures of the batch as one tensor; accumulates gradients
GradientFunction = Callable[[Rays, Tensor], Tensor]


class GraphedStep:
    """CUDA graph of a gradient function, for batches of one size.

    Raises
    ------
    RuntimeError
        If the function cannot be recorded, e.g. because it synchronizes with the host or allocates memory outside of
        PyTorch's allocator.
    """

    def __init__(self, function: GradientFunction, rays: Rays, target: Tensor, generator: torch.Generator) -> None:
        self.rays = Rays(**{name: value.clone() for name, value in vars(rays).items()})
        self.target = target.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                function(self.rays, self.target)
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.output = function(self.rays, self.target)

    def __call__(self, rays: Rays, target: Tensor) -> Tensor:
        """Return the figures of a batch; random numbers continue from the state of the generator."""
        for name, value in vars(rays).items():
            getattr(self.rays, name).copy_(value)
        self.target.copy_(target)
        self.graph.replay()
        return self.output


def record(
    function: GradientFunction,
    rays: Rays,
    target: Tensor,
    generator: torch.Generator,
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
) -> GradientFunction:
    """Return the CUDA graph of a gradient function, or the function itself, with a log line, if it cannot be recorded.

    The states of the generator and of the model's buffers (running statistics, vectors of power iterations) are
    restored; gradients are zero afterwards.
    """
    state, buffers = generator.get_state(), [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        made: GradientFunction = GraphedStep(function, rays, target, generator)
    except RuntimeError as error:
        log.info("the step is not recorded as a CUDA graph (%s): it runs kernel by kernel", str(error).split("\n")[0])
        made = function
    generator.set_state(state)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    optimizer.zero_grad(set_to_none=False)
    return made
