"""A training step recorded once as a CUDA graph and replayed: one launch instead of hundreds.

On a GPU the step of a small batch is over before Python has asked for the next one: the work of ``fern.txt`` takes a
Hopper about a millisecond, launching it kernel by kernel several. A graph fixes addresses, so rays and colours are
copied into buffers of its own; weights, gradients and the generator are those it was recorded with. No figure of this
has been measured yet: no GPU was at hand.
"""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from enerf.core.types import Rays

log = logging.getLogger("enerf")

WARM_UP = 3  # steps before the recording, in which kernels are compiled and memory is found; torch asks for it
# rays, target -> what was seen, as one tensor; adds to gradients
Work = Callable[[Rays, Tensor], Tensor]


class Recorded:
    """Work recorded for batches of one size.

    Raises
    ------
    RuntimeError
        If the work cannot be recorded: it looks at its results, say, or asks for memory in another way than torch's.
    """

    def __init__(self, work: Work, rays: Rays, target: Tensor, generator: torch.Generator) -> None:
        self.rays = Rays(**{name: value.clone() for name, value in vars(rays).items()})
        self.target = target.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                work(self.rays, self.target)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            self.seen = work(self.rays, self.target)

    def __call__(self, rays: Rays, target: Tensor) -> Tensor:
        """What is seen of a batch; random numbers go on from where the generator stands."""
        for name, value in vars(rays).items():
            getattr(self.rays, name).copy_(value)
        self.target.copy_(target)
        self.graph.replay()
        return self.seen


def recorded(
    work: Work, rays: Rays, target: Tensor, generator: torch.Generator, optimiser: torch.optim.Optimizer
) -> Work:
    """The work as a recording, or as it is if that fails, with one line in the log; gradients are zero afterwards."""
    state = generator.get_state()
    try:
        made: Work = Recorded(work, rays, target, generator)
    except RuntimeError as error:
        log.info("the step is not recorded as a CUDA graph (%s): it runs kernel by kernel", str(error).split("\n")[0])
        made = work
    generator.set_state(state)
    optimiser.zero_grad(set_to_none=False)
    return made
