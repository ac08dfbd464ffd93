"""Cost of each conditioning method: training steps of an MLP, a CNN and a ViT block by turns, and evaluation.

    python benchmarks/conditioning.py [--blocks mlp,cnn,vit] [--methods row,row_once] [--rounds 10] [--compile]

Work: forward, backward and optimizer step on noise; every side starts from the same weights. The learning rate is 0, at
the same cost as any other, so that all rounds compute the same. The sides take turns in one process: ``plain``,
``plain again`` (the A/A ratio, which measures the noise), and each method on all layers that it supports.

- ``layers``: number of conditioned layers; ``maps a step``: weights computed per step. A map is computed at each
  access, and ``nn.MultiheadAttention`` reads its weight three times; ``row_once`` steps inside ``computed_once``.
- ``ratio``: seconds of a step over the plain one's, median over the rounds; ``row_compiled`` over ``plain_compiled``.
- ``least over least``: the same of the shortest turns, which other work on the computer disturbs less.
- ``ms a pass``: all conditioned weights computed once and a gradient of each backpropagated, measured alone, because
  its share of a step may be below the noise. For ``batch_norm``, statistics of the inputs and their gradients.
- ``row_once / fused``: a pass of ``row_once`` over torch's fused weight normalization of the same matrices with its
  backward, by turns, beside the A/A ratio of the latter. It has the same kernels, so the rest is bookkeeping; for
  networks of linear layers only. As a share of a step it is the least that E can cost.
- ``baked``: the same model after ``bake``, evaluated, over the plain one.

``row_every_10`` computes its divisors at every tenth step: a median over turns of fewer than ten steps excludes that,
and so does a pass, which takes no step. The last line is ``ratio=X noise=LOW..HIGH`` of the first method in the first
block.
"""

import statistics
import textwrap
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import ours
import sides
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

from enerf.conditioning import batch_norm, layers, weight_views
from enerf.conditioning.weight_cache import computed_once
from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.fields.backends import inductor
from enerf.reporting import tables

PLAIN, AGAIN, PLAIN_COMPILED = "plain", "plain again", "plain_compiled"
HEADER = ["block", "method", "layers", "maps a step", "ms a step", "ratio", "noise", "ms a pass", "of a step"]
HEADER += ["baked", "noise"]


@dataclass(frozen=True)
class Block:
    """A network to train: its constructor, the shape of its inputs, and its optimizer."""

    name: str
    words: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam


@dataclass(frozen=True)
class Treatment:
    """A method of ``layers.condition`` (None: none) with its options; whether steps cache weights or are compiled."""

    method: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    cached: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Bench:
    """Settings of a measurement: device, report, rounds, seconds of a turn (at least one step), passes in a row."""

    device: torch.device
    report: sides.Report
    rounds: int
    turn: float = 0.2
    passes: int = 10


TREATMENTS = {
    **{method: Treatment(method) for method in layers.METHODS},
    "row_detached": Treatment("row", {"gradient": "detached"}),
    "row_every_10": Treatment("row", {"gradient": "detached", "every": 10}),
    "row_learned": Treatment("row", {"scale": "learned"}),
    "row_once": Treatment("row", cached=True),
}
COMPILED = {PLAIN_COMPILED: Treatment(compiled=True), "row_compiled": Treatment("row", compiled=True)}


class Residual(nn.Module):
    """A basic block of a ResNet: two convolutions with batch norm around a shortcut."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(wide, wide, 3, padding=1, bias=False) for _ in range(2))
        self.inner = nn.Sequential(first, nn.BatchNorm2d(wide), nn.ReLU(), second, nn.BatchNorm2d(wide))

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the branch to its input."""
        return (inputs + self.inner(inputs)).relu()


def mlp(depth: int, wide: int, points: int) -> Block:
    def build() -> nn.Module:
        made = [nn.Linear(wide, wide) for _ in range(depth)]
        for layer in made:  # jacobi divides by the diagonals: without the ones, eight layers of it overflow
            layer.weight.detach().diagonal().add_(1.0)
        return nn.Sequential(*(part for layer in made for part in (layer, nn.ReLU())))

    return Block(f"mlp {points}", f"{depth}×{wide}, {points} points, Adam", build, (points, wide))


def cnn(wide: int, images: int, size: int) -> Block:
    words = f"4 convolutions 3×3 of {wide} channels with batch norm, {images} images of {size}×{size}, SGD"
    shape = (images, wide, size, size)
    return Block("cnn", words, lambda: nn.Sequential(Residual(wide), Residual(wide)), shape, torch.optim.SGD)


def vit(wide: int, images: int, tokens: int) -> Block:
    options = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}

    def build() -> nn.Module:
        return nn.Sequential(*(nn.TransformerEncoderLayer(wide, 3, 4 * wide, **options) for _ in range(2)))

    words = f"2 encoder layers of width {wide} with 3 heads, {images} images of {tokens} tokens, Adam"
    return Block("vit", words, build, (images, tokens, wide))


def blocks_of(quick: bool) -> dict[str, tuple[Block, ...]]:
    """Blocks by name; tiny ones if ``quick``."""
    if quick:
        mlps = mlp(2, 16, 64), mlp(2, 16, 16)
        others = {"cnn": (cnn(8, 2, 8),), "vit": (vit(24, 2, 5),)}
    else:
        mlps = mlp(8, 256, 16384), mlp(8, 256, 1024)
        others = {"cnn": (cnn(64, 32, 32),), "vit": (vit(192, 32, 65),)}
    return {"mlp": mlps, "mlp_large": mlps[:1], "mlp_small": mlps[1:], **others}


class Training:
    """A block under a treatment: training steps, then evaluations after baking."""

    def __init__(self, block: Block, treatment: Treatment, inputs: Tensor) -> None:
        self.treatment, self.inputs = treatment, inputs
        torch.manual_seed(0)
        self.model = block.build()
        method = treatment.method
        self.names = [] if method is None else layers.condition(self.model, method, **treatment.options)
        self.model.to(inputs.device).train()
        more = {"momentum": 0.9} if block.optimizer is torch.optim.SGD else {}
        self.optimizer = block.optimizer(self.model.parameters(), lr=0.0, **more)
        self._call = torch.compile(self.model) if treatment.compiled else self.model
        self._fed = [(m, self._inputs_of(m)) for m in self.model.modules() if batch_norm.is_preconditioned(m)]
        self.step()  # so that allocations and compilation are not measured

    def step(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        with computed_once(self.model) if self.treatment.cached else nullcontext():
            self._call(self.inputs).square().mean().backward()
        self.optimizer.step()

    def evaluate(self) -> None:
        """Compute the outputs without gradients."""
        with torch.no_grad():
            self.model(self.inputs)

    def maps_a_step(self) -> int:
        """Number of weights computed in a step; 0 if compiled, because counting would compile again."""
        if self.treatment.compiled or self.treatment.cached:
            return len(self._computed()) if self.treatment.cached else 0
        called: list[nn.Module] = []
        hook = register_module_forward_hook(lambda module, *_: called.append(module))
        self.step()
        hook.remove()
        return sum(isinstance(m, parametrize.ParametrizationList) or batch_norm.is_preconditioned(m) for m in called)

    def one_pass(self) -> Callable[[], None] | None:
        """Computes all conditioned weights and backpropagates; None if compiled, or without such weights."""
        pulled = [torch.randn_like(value) for value in self._computed()]
        if not pulled or self.treatment.compiled:
            return None
        layers_of = [module for module in self.model.modules() if parametrize.is_parametrized(module, "weight")]
        is_direct = len(layers_of) == len(pulled)  # no packed projections of attention

        def compute() -> None:
            self.optimizer.zero_grad()
            if not self.treatment.cached:
                torch.autograd.backward(self._computed(), pulled)
                return
            with computed_once(self.model):
                leaves = [layer.weight for layer in layers_of] if is_direct else self._computed()
                for leaf, gradient in zip(leaves, pulled, strict=True):
                    leaf.grad = gradient

        compute()
        return compute

    def fused_pass(self) -> Callable[[], None] | None:
        """Torch's weight normalization of the raw matrices and its backward; None if a raw weight is not a matrix."""
        items = [m for m in self.model.modules() if isinstance(m, parametrize.ParametrizationList)]
        raws = [item.original for item in items if hasattr(item, "original") and item.original.dim() == 2]
        if not raws or len(raws) < len(items):
            return None
        pulled = [torch.randn_like(raw) for raw in raws]
        lengths = [raw.new_ones(1, raw.shape[1]) for raw in raws]

        def compute() -> None:
            self.optimizer.zero_grad()
            values = [torch._weight_norm(raw, length, 1) for raw, length in zip(raws, lengths, strict=True)]
            torch.autograd.backward(values, pulled)

        compute()
        return compute

    def pass_seconds(self, bench: Bench) -> float | None:
        """Seconds of ``one_pass``; None if there is none."""
        compute = self.one_pass()
        if compute is None:
            return None
        found: list[float] = []
        while not found or (len(found) < bench.rounds and sum(found) * bench.passes < 0.5):  # half a second at most
            found.append(ours.seconds_of(compute, bench.passes, bench.device))
        return statistics.median(found)

    def _computed(self) -> list[Tensor]:
        """The conditioned weights, computed now; for batch-norm preconditioning the biases too."""
        if self._fed:
            pairs = [module._preconditioned(inputs, module.weight.dim() - 2) for module, inputs in self._fed]
            return [value for pair in pairs for value in pair if value is not None]
        views = [(module, view.name) for module in self.model.modules() for view in weight_views.views(module)]
        return [getattr(module, name) for module, name in views if parametrize.is_parametrized(module, name)]

    def _inputs_of(self, module: nn.Module) -> Tensor:
        """The inputs of a layer in a step."""
        found: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].detach()))
        self.evaluate()
        hook.remove()
        return found[0]


def trainings(block: Block, treatments: dict[str, Treatment], bench: Bench) -> dict[str, Training]:
    """The sides by name; methods that do not support the block are skipped and reported."""
    torch.compiler.reset()  # torch.compile stops recompiling code after many models
    inputs = torch.randn(block.shape, generator=torch.Generator().manual_seed(0)).to(bench.device)
    made = {name: Training(block, Treatment(), inputs) for name in (PLAIN, AGAIN)}
    for name, treatment in treatments.items():
        try:
            made[name] = Training(block, treatment, inputs)
        except (ValueError, RuntimeError) as error:  # no supported layer, or torch.compile failed
            bench.report(textwrap.shorten(f"{block.name}: {name} is skipped: {error}", 160, placeholder=" …"))
    return made


def by_turns(calls: dict[str, Callable[[], None]], bench: Bench) -> tuple[dict[str, list[float]], int]:
    """Seconds per call in each round, and calls per turn; a turn of ``plain`` lasts about ``bench.turn``."""
    times = max(1, round(bench.turn / ours.seconds_of(calls[PLAIN], 2, bench.device)))
    timers = {name: lambda call=call: ours.seconds_of(call, times, bench.device) for name, call in calls.items()}
    return sides.by_turns(timers, bench.rounds), times


def measured(block: Block, made: dict[str, Training], bench: Bench) -> str:
    """Report a row for each side; returns the lines that a benchmark ends with, for the first treated one."""
    total = sum(bool(weight_views.views(module)) for module in made[PLAIN].model.modules())
    maps = {name: training.maps_a_step() for name, training in made.items()}
    passes = {name: training.pass_seconds(bench) for name, training in made.items()}
    if "row_once" in made:
        report_pass(block, made["row_once"], bench)
    found, steps = by_turns({name: side.step for name, side in made.items()}, bench)
    evaluated = {name: side.evaluate for name, side in made.items() if not side.treatment.compiled}
    for name in evaluated:
        layers.bake(made[name].model.eval())
        made[name].evaluate()
    alone, times = by_turns(evaluated, replace(bench, turn=bench.turn / 2))
    took = f"{statistics.median(alone[PLAIN]) * 1e3:.2f} ms, {times} a turn"
    bench.report(f"{block.name}: {block.words}; {bench.rounds} rounds, steps a turn: {steps}; plain evaluation: {took}")
    rows, step = [HEADER], statistics.median(found[PLAIN])
    for name, seconds in found.items():
        side, cost = made[name], passes[name]
        below = found.get(PLAIN_COMPILED, found[PLAIN]) if name == "row_compiled" else found[PLAIN]
        row = [block.name, name, f"{len(side.names)} of {total}", str(maps[name] or "-")]
        row += [f"{statistics.median(seconds) * 1e3:.2f}", *ratio_cells(seconds, below)]
        row += ["-", "-"] if cost is None else [f"{cost * 1e3:.3f}", f"{cost / step:.2%}"]
        rows.append(row + (ratio_cells(alone[name], alone[PLAIN]) if name in alone else ["-", "-"]))
    bench.report(tables.as_text(rows))
    least = {name: min(seconds) / min(found[PLAIN]) for name, seconds in found.items() if name != PLAIN}
    bench.report("least over least of plain: " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in least.items()))
    last = [*found][min(2, len(found) - 1)]
    return f"{last} / {PLAIN}, {block.name}:\n{sides.ratio_line(sides.ratios(found[last], found[PLAIN]), 3)}"


def report_pass(block: Block, training: Training, bench: Bench) -> None:
    """Report a pass of ``row_once`` beside torch's fused weight normalization, by turns; nothing if it has none."""
    ours_pass, fused = training.one_pass(), training.fused_pass()
    if ours_pass is None or fused is None:
        return

    def seconds(call: Callable[[], None]) -> float:
        call()  # so that each starts with its own data in the caches
        return ours.seconds_of(call, 1, bench.device)

    calls = {PLAIN: fused, AGAIN: fused, "row_once": ours_pass}
    found = sides.by_turns({name: partial(seconds, call) for name, call in calls.items()}, bench.rounds * 10)
    row_ms, fused_ms = (statistics.median(found[name]) * 1e3 for name in ("row_once", PLAIN))
    least, least_fused = (min(found[name]) * 1e3 for name in ("row_once", PLAIN))
    bench.report(
        f"{block.name}: pass of row_once {row_ms:.3f} ms (least {least:.3f}), of fused weight norm {fused_ms:.3f} ms "
        f"(least {least_fused:.3f}); {len(found[PLAIN])} rounds of one pass"
    )
    bench.report(f"fused again / fused (A/A): {sides.ratio_line(sides.ratios(found[AGAIN], found[PLAIN]), 3)}")
    bench.report(f"row_once / fused: {sides.ratio_line(sides.ratios(found['row_once'], found[PLAIN]), 3)}")


def ratio_cells(above: Sequence[float], below: Sequence[float]) -> list[str]:
    """Median of the ratios, and its noise."""
    values = sides.ratios(above, below)
    low, high = sides.interval(values)
    return [f"{statistics.median(values):.3f}", f"{low:.3f}..{high:.3f}"] if above is not below else ["1", "-"]


def words_of(option: str, text: str, known: Collection[str]) -> list[str]:
    """The words of a comma-separated option, without duplicates."""
    words = list(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in known:
            raise InputError(f"option {option}: found {word!r}, expected some of {', '.join(known)}")
    return words


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--blocks", default="mlp,cnn,vit", help="some of mlp, cnn, vit, or of mlp_small, mlp_large")
    parser.add_argument("--methods", default=",".join(TREATMENTS), help=f"some of {', '.join(TREATMENTS)}")
    parser.add_argument("--rounds", type=int, default=10, help="how often the sides take turns")
    parser.add_argument("--turn", type=float, default=0.2, help="seconds of a turn; 0: one step, beside other work")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--compile", action="store_true", help="torch.compile of plain and of row too: minutes more")
    parser.add_argument("--quick", action="store_true", help="tiny blocks: to see that it runs; figures say nothing")
    args = parser.parse_args()
    known = blocks_of(args.quick)
    chosen = [block for word in words_of("--blocks", args.blocks, known) for block in known[word]]
    treatments = {name: TREATMENTS[name] for name in words_of("--methods", args.methods, TREATMENTS)}
    if args.rounds < 1:
        raise InputError(f"option --rounds: found {args.rounds}, expected at least 1")
    if not 0 <= args.turn <= 60:
        raise InputError(f"option --turn: found {args.turn:g}, expected 0 to 60 seconds")
    device = ours.device_of(args.device)
    report = sides.Report(args.out, device)
    bench = Bench(device, report, args.rounds, 0.0, 1) if args.quick else Bench(device, report, args.rounds, args.turn)
    report(f"# {core_device.prepare(device)}{'; quick: the figures are not meaningful' if args.quick else ''}")
    reason = inductor.unavailable_reason() if args.compile else None
    if reason:
        report(f"nothing is compiled: {reason}")
    elif args.compile:
        treatments |= COMPILED
    lines = [measured(block, trainings(block, treatments, bench), bench) for block in chosen]
    report(lines[0])


if __name__ == "__main__":
    sides.enter(main)
