"""Cost of each normalization of a classifier: training steps of one network by turns.

    python benchmarks/classifiers.py [--methods bn,bn+w,bn+ws,bn+e,none,none+bnp] [--model densenet] [--precision bf16]

Work: a training step of ``tasks.classifier.step``, then SGD, on one batch of noise; every side starts from the same raw
weights. The learning rate is 0, at the same cost as any other, so that all rounds compute the same. The sides take
turns in one process: each method, and the first one again (the A/A ratio, which measures the noise). A side without a
normalization has other activations, and biases.

One row per method: median milliseconds of a step, its ratio to the first method round by round, with its noise (see
``sides.py``), the quartiles of these ratios, and how many layers are treated. The last line is ``ratio=X
noise=LOW..HIGH`` of the last method.
"""

import argparse
import statistics
from collections.abc import Sequence

import conditioning
import numpy as np
import ours
import sides
import torch
from torch import Tensor

from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.reporting import tables
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier import optimizers as classifier_optimizers
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier.config import MODELS, NORMALIZATIONS, ClassifierTrainOptions, NormalizationOptions
from enerf.tasks.classifier.step import Targets

HEADER = ["method", "ms a step", "ratio", "noise", "quartiles", "layers"]
SMALL = (22, 0.67)  # depth and width of DenseNet-BC-22-8


class Training:
    """A network with a normalization, trained step by step."""

    def __init__(self, args: argparse.Namespace, normalisation: str, images: Tensor, labels: Tensor) -> None:
        norm, treatment = NormalizationOptions(normalisation=normalisation).parts
        try:
            model = classifier_build.network(
                args.model,
                classes=args.classes,
                channels=args.channels,
                size=args.size,
                norm=norm,
                seed=0,
                width=args.width,
                depth=args.depth,
                patch=args.patch,
            )
            names = classifier_build.condition(model, treatment)
        except ValueError as error:
            raise InputError(f"{normalisation}: {error}") from None
        self.treated = len(names) if treatment else 0
        self.model = model.to(images.device).to(memory_format=core_device.image_order(images.device)).train()
        self.optimizer = classifier_optimizers.make(ClassifierTrainOptions(lrate=0.0), self.model)
        self.images, self.labels, self.precision = images, labels, args.precision
        self.targets = Targets(args.classes)
        self.step()  # so that allocations are not measured
        self.step()

    def step(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        classifier_step.gradient_step(self.model, self.images, self.labels, self.targets, precision=self.precision)
        self.optimizer.step()

    def parameters(self) -> int:
        """Number of trainable values."""
        return sum(p.numel() for p in self.model.parameters())


def batch(args: argparse.Namespace, device: torch.device) -> tuple[Tensor, Tensor]:
    """A batch of standardized noise, with labels."""
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch, args.channels, args.size, args.size)
    noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    middle, deviation = [0.5] * args.channels, [0.29] * args.channels
    labels = torch.randint(args.classes, (args.batch,), generator=generator)
    return classifier_step.standardize(noise, middle, deviation, device), labels.to(device)


def row_of(name: str, found: dict[str, list[float]], first: str, treated: int) -> list[str]:
    """The row of one side."""
    took = f"{statistics.median(found[name]) * 1e3:.2f}"
    layers = str(treated) if treated else "-"
    if name == first:
        return [name, took, "1", "-", "-", layers]
    values = sides.ratios(found[name], found[first])
    low, high = sides.interval(values)
    quartiles = "..".join(f"{value:.3f}" for value in np.quantile(values, (0.25, 0.75)))
    return [name, took, f"{statistics.median(values):.3f}", f"{low:.3f}..{high:.3f}", quartiles, layers]


def measured(args: argparse.Namespace, methods: Sequence[str], device: torch.device, report: sides.Report) -> str:
    """Report a row for each side; returns the lines that a benchmark ends with, for the last method."""
    images, labels = batch(args, device)
    first = methods[0]
    again = f"{first} again"
    named = {first: first, again: first, **{name: name for name in methods[1:]}}
    made = {name: Training(args, normalisation, images, labels) for name, normalisation in named.items()}
    title = classifier_build.model_title(args.model, args.width, args.depth, args.patch, args.size)
    report(
        f"{title}: {made[first].parameters()} parameters, {args.batch} images of {args.size}×{args.size}×"
        f"{args.channels}, SGD, {args.precision}; {args.rounds} rounds, steps a turn: {args.steps}"
    )
    timers = {name: lambda side=side: ours.seconds_of(side.step, args.steps, device) for name, side in made.items()}
    found = sides.by_turns(timers, args.rounds)
    report(tables.as_text([HEADER, *(row_of(name, found, first, side.treated) for name, side in made.items())]))
    last = methods[-1] if len(methods) > 1 else again
    return f"{last} / {first}:\n{sides.ratio_line(sides.ratios(found[last], found[first]), 3)}"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = sides.parser(__doc__)
    made.add_argument(
        "--methods", default="bn,bn+w,bn+ws,bn+e,none,none+bnp", help=f"some of {', '.join(NORMALIZATIONS)}"
    )
    made.add_argument("--model", default="densenet", choices=MODELS, help="architecture")
    made.add_argument("--depth", type=int, help="layers of DenseNet (22), blocks of a ViT (its own)")
    made.add_argument("--width", type=float, help="times the network's own channels (DenseNet: 0.67)")
    made.add_argument("--patch", type=int, default=0, help="side of a ViT's patches; 0: the usual one")
    made.add_argument("--size", type=int, default=28, help="side of the images")
    made.add_argument("--channels", type=int, default=1, help="of the images")
    made.add_argument("--classes", type=int, default=10, help="of the images")
    made.add_argument("--batch", type=int, default=50, help="images a step")
    made.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of the factors of products")
    made.add_argument("--rounds", type=int, default=15, help="how often the sides take turns")
    made.add_argument("--steps", type=int, default=3, help="steps a turn")
    made.add_argument("--threads", type=int, default=1, help="of the processor")
    made.add_argument("--device", default="cpu", help="auto, cpu, cuda")
    return made


def main() -> None:
    args = parser().parse_args()
    depth, width = SMALL if args.model == "densenet" else (0, 1.0)
    args.depth = depth if args.depth is None else args.depth
    args.width = width if args.width is None else args.width
    methods = conditioning.words_of("--methods", args.methods, NORMALIZATIONS)
    for name in ("rounds", "steps", "threads", "batch", "channels", "classes"):
        if getattr(args, name) < 1:
            raise InputError(f"option --{name}: found {getattr(args, name)}, expected at least 1")
    torch.set_num_threads(args.threads)
    device = ours.device_of(args.device)
    report = sides.Report(args.out, device)
    report(f"# {core_device.prepare(device)}")
    report(measured(args, methods, device, report))


if __name__ == "__main__":
    sides.enter(main)
