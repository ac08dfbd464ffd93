"""Milliseconds of a training step by part, with the compiled operations on rays and with those of torch, interleaved.

    python benchmarks/profile_step.py [--config fast/fern.txt] [--datadir SCENE] [--rounds 20] [--steps 5]

A step is that of ``train_nerf.py``, without hooks; without ``--datadir`` the images are noise. Parts are timed by
wrapping functions of the two sides, each without the parts within it, so that they add up to the whole. The backward
pass of encodings, networks and compiled operations on rays counts as theirs; that of all torch operations is one part.
"rest" is the step without encodings and networks. Both sides train runs of their own, from the same seed, in this
process. The last line is ``ratio=X noise=LOW..HIGH``: the rest with torch's operations over that with compiled ones.
"""

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import ours
import sides
import torch

from enerf.core.errors import InputError
from enerf.engine import optimizers, trainer
from enerf.fields.backends import cpu_amx, cpu_dense, cpu_hashgrid
from enerf.fields.deferred import ColorNetwork, DeferredNeRF
from enerf.fields.hash_space import ProposalField
from enerf.fields.nerf import NeRF
from enerf.rendering import cpu_rays, render
from enerf.reporting import tables
from enerf.tasks.nerf import losses
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf.batches import Batches

OTHERS = "everything else"
FIELDS = ("encodings", "networks")
# part -> functions: owner and name
FUNCTIONS: dict[str, list[tuple[Any, str]]] = {
    "encodings": [(cpu_hashgrid._Encode, "forward"), (cpu_hashgrid._Encode, "backward")],
    "networks": [
        (owner, name)
        for module in (cpu_dense, cpu_amx)
        for owner, name in ((module._Evaluate, "forward"), (module._Evaluate, "backward"), (module, "_pack"))
    ],
    "fields without these": [(field, "forward") for field in (NeRF, DeferredNeRF, ColorNetwork, ProposalField)],
    "sampling and compositing": [(cpu_rays._Composite, "backward"), (render, "_render_proposed")],
    "losses": [(losses, "photometric_with_proposal"), (cpu_rays._Interlevel, "backward")],
    "backward pass of torch": [(torch.Tensor, "backward")],
    "batch": [(Batches, "draw"), (Batches, "batch")],
    "removal and check of gradients": [(trainer, "_clear_gradients"), (trainer, "_total_norm")],
    "optimizer": [(optimizers.Adam, "step")],
}


class Clock:
    """Seconds by part; a part that is entered within another interrupts that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = [OTHERS]
        self._since = time.perf_counter()

    def switch(self) -> None:
        """Count the time since the last call for the part that is open."""
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context in which time counts for a part."""
        self.switch()
        self._open.append(name)
        try:
            yield
        finally:
            self.switch()
            self._open.pop()


def timed(clock: Clock, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose time counts for a part."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with clock.part(name):
            return function(*args, **options)

    return wrapped


@contextmanager
def timing(clock: Clock, parts: Mapping[str, Sequence[tuple[Any, str]]]) -> Iterator[None]:
    """Context in which the functions of parts, each given by its owner and name, are timed."""
    with ExitStack() as stack:
        for name, functions in parts.items():
            for owner, attribute in functions:
                wrapped: Any = timed(clock, name, getattr(owner, attribute))
                if isinstance(owner, type) and isinstance(vars(owner).get(attribute), staticmethod):
                    wrapped = staticmethod(wrapped)
                stack.enter_context(patch.object(owner, attribute, wrapped))
        yield


class Side:
    """A run, trained with one kind of operations on rays."""

    def __init__(self, args: Any, compiled: bool) -> None:
        options = ours.options_of(args, **({"datadir": args.datadir} if args.datadir else {}))
        scene = None if args.datadir else ours.noise_scene()
        chosen = nerf_setup.run_sampling
        with patch.object(nerf_setup, "run_sampling", lambda run: replace(chosen(run), compiled=compiled)):
            self.training = ours.Training(options, scene)
        self.rounds: list[dict[str, float]] = []

    def measure(self, steps: int) -> None:
        """Train for some steps, and keep their milliseconds by part."""
        clock = Clock()
        with timing(clock, FUNCTIONS):
            for _ in range(steps):
                self.training.step()
        clock.switch()
        self.rounds.append({name: 1e3 * seconds / steps for name, seconds in clock.seconds.items()})

    def rest(self) -> list[float]:
        """Milliseconds of each round without encodings and networks."""
        return [sum(ms for name, ms in found.items() if name not in FIELDS) for found in self.rounds]

    def column(self) -> list[str]:
        """Median milliseconds of all parts, of the rest and of the whole."""
        parts = [[found.get(name, 0.0) for found in self.rounds] for name in (*FUNCTIONS, OTHERS)]
        whole = [sum(found.values()) for found in self.rounds]
        return [f"{statistics.median(values):.2f}" for values in (*parts, self.rest(), whole)]


def main() -> None:
    parser = sides.parser(__doc__)
    ours.add_options(parser, "fast/fern.txt")
    parser.add_argument("--datadir", default="", help="scene; without it the images are noise")
    parser.add_argument("--rounds", type=int, default=20, help="how often the two sides take turns")
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--warm_up", type=int, default=20, help="steps of each side before the first turn")
    args = parser.parse_args()
    if ours.device_of(args.device).type != "cpu" or not cpu_rays.available():
        raise InputError("the operations on rays are compiled for CPUs only: give --device cpu, and install a compiler")
    report = sides.Report(args.out, torch.device("cpu"))
    both = {"compiled": Side(args, True), "torch": Side(args, False)}
    report(both["compiled"].training.words)
    for side in both.values():
        side.measure(args.warm_up)
        side.rounds.clear()
    for turn in range(args.rounds):
        for side in (list(both.values()), list(both.values())[::-1])[turn % 2]:
            side.measure(args.steps)
    names = [*FUNCTIONS, OTHERS, "rest", "whole step"]
    rows = zip(names, *(side.column() for side in both.values()), strict=True)
    report(tables.as_text([("ms a step", *both), *rows]))
    report(sides.ratio_line(sides.ratios(both["torch"].rest(), both["compiled"].rest())))


if __name__ == "__main__":
    sides.enter(main)
