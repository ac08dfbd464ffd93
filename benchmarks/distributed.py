"""Scaling of a training step over processes of one thread each, and a model of its communication on GPUs.

    python benchmarks/distributed.py [--config fast/fern.txt] [--rays N] [--processes 2] [--rounds 12] [--out FILE]

One process, the same again (A/A), and several processes take turns, all with the same joint batch on photographs of
noise. The sums of gradients and the exchange of figures are also timed by themselves. The ratio of processor times, of
one process over the busiest of several, is that of a computer with nothing else to do but for the waiting. The last
line is ``ratio=X noise=LOW..HIGH``: the time of a step of one process over that of several, at best their number.

The model is no measurement. Its assumptions are printed with it; ``--model`` prints it alone.
"""

import argparse
import os
import socket
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import ours
import sides
import torch
from sides import SPAWN, Report, Side

from enerf.config import parser as config_parser
from enerf.engine import distributed, trainer
from enerf.engine.distributed import Team
from enerf.engine.joint_step import FIGURES, JointStep
from enerf.reporting import tables
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape.config import ShapeConfig

EXCHANGED = 8 * (FIGURES + 5)  # bytes of each process in an exchange
HOP = 5e-6  # seconds of latency of one message between GPUs or computers
CPU_HOP = 30e-6  # seconds of latency of one message of an exchange, which runs on the CPUs
# Name -> GPUs, computers, bytes a second of each GPU to the next one, and of each computer to the next one
PLACES = {
    "8 GPUs, NVLink": (8, 1, 300e9, 0.0),
    "8 GPUs, PCIe 4": (8, 1, 16e9, 0.0),
    "2 × 8, 400 Gb/s": (16, 2, 300e9, 40e9),
    "8 × 8, 400 Gb/s": (64, 8, 300e9, 40e9),
    "2 × 8, 10 Gb/s": (16, 2, 300e9, 1e9),
}
MEMORY = 3e12  # bytes a second of a GPU's memory
ADAM = 7  # times that Adam reads or writes a parameter: gradient, weight, two moments
EFFICIENT = 0.8
PRESETS = ("fern.txt", "fast/fern.txt", "shape_fast.txt", "cifar_resnet18.txt", "imagenet_vit_b.txt")
ASSUMED = (
    f"assumed: fp32 gradients; rings, 2 (n - 1) / n of the bytes over each link and 2 (n - 1) messages of {HOP:.0e} s; "
    "in several computers a sum within each, one between them over one card, and a copy within each; no overlap with "
    f"the backward pass; exchanges of figures by n - 1 messages of {CPU_HOP:.0e} s; every process updates all "
    f"parameters ({ADAM} accesses at {MEMORY:.0e} B/s). Least step: what one GPU must take for the batch so that n "
    f"GPUs that share it reach {EFFICIENT:.0%} of n times the speed."
)


class Alone(ours.Training):
    """Training in one process of one thread."""

    def __init__(self, options: NerfConfig) -> None:
        torch.set_num_threads(1)
        super().__init__(options, ours.noise_scene())
        self._busy = 0.0

    def seconds(self, steps: int) -> float:
        """Mean seconds per step, over ``steps``."""
        began = time.process_time()
        found = super().seconds(steps)
        self._busy = (time.process_time() - began) / steps
        return found

    def busy(self) -> float:
        """Mean seconds of processor time per step, of the last measurement."""
        return self._busy


class Together:
    """Training in several processes of one thread each; this one is the first."""

    def __init__(self, options: NerfConfig, size: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._others = [SPAWN.Process(target=_follow, args=(options, rank, size, port)) for rank in range(1, size)]
        for each in self._others:
            each.start()
        self._joint = Joint(options, 0, size, port)
        self.words = self._joint.words

    def seconds(self, steps: int) -> float:
        """Mean seconds per step, over ``steps``."""
        return self._joint.lead("step", steps)

    def busy(self) -> float:
        """Mean seconds of processor time per step, of the busiest process in the last measurement."""
        return self._joint.busy

    def end(self) -> None:
        """End the other processes."""
        self._joint.lead("end", 0)
        for each in self._others:
            each.join()

    def sum_seconds(self, times: int) -> float:
        """Mean seconds of a sum of all gradients."""
        return self._joint.lead("sum", times)

    def exchange_seconds(self, times: int) -> float:
        """Mean seconds of an exchange of figures."""
        return self._joint.lead("exchange", times)


class Joint:
    """One of several processes."""

    def __init__(self, options: NerfConfig, rank: int, size: int, port: int) -> None:
        torch.set_num_threads(1)
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank}
        os.environ |= {name: str(value) for name, value in where.items()}
        self._context = distributed.joined("cpu")
        self.team: Team = self._context.__enter__()
        self.run, self.words = ours.prepared(options, ours.noise_scene())
        self.busy = 0.0
        self._step: Any = JointStep(self.team, nerf_train.step_function(self.run), lambda: False)  # type: ignore[arg-type]
        self.step()

    def step(self) -> None:
        """Take one step."""
        trainer.one_step(self.run.state, self._step)

    def lead(self, kind: str, times: int) -> float:
        """Let all processes do something and measure it."""
        self.team.of_first(lambda: (kind, times))
        return self.timed(kind, times) if times else 0.0

    def follow(self) -> None:
        """Do what the first process says, until it ends."""
        while (said := self.team.of_first(lambda: ("end", 0)))[0] != "end":
            self.timed(*said)

    def timed(self, kind: str, times: int) -> float:
        """Mean seconds."""
        gradients = [p.grad for p in self.run.fields.parameters() if p.grad is not None]
        actions = {
            "step": self.step,
            "sum": lambda: self.team.sum_gradients(gradients),
            "exchange": lambda: self.team.exchange([0.0] * (FIGURES + 5)),
        }
        began, busy = time.perf_counter(), time.process_time()
        for _ in range(times):
            actions[kind]()
        elapsed = (time.perf_counter() - began) / times
        self.busy = max(each[0] for each in self.team.exchange([(time.process_time() - busy) / times]))
        return elapsed


def _follow(options: NerfConfig, rank: int, size: int, port: int) -> None:
    Joint(options, rank, size, port).follow()


def parameters_of(name: str) -> list[torch.nn.Parameter]:
    """The parameters of a configuration's model, on no device."""
    with torch.device("meta"):
        if name.startswith(("cifar", "imagenet")):
            m = config_parser.parse(ClassifierConfig, ["--config", name, "--images", "x"])[0].model
            classes, size = (1000, 224) if name.startswith("imagenet") else (10, 32)
            norm = classifier_build.norms_of(m.model)[0]
            sizes = {"classes": classes, "channels": 3, "size": size, "norm": norm, "width": m.width, "depth": m.depth}
            return list(classifier_build.network(m.model, seed=0, patch=m.patch, **sizes).parameters())
        if name.startswith("shape"):
            return list(
                shape_setup.new_field(
                    config_parser.parse(ShapeConfig, ["--config", name, "--mesh", "x"])[0]
                ).parameters()
            )
        config = config_parser.parse(NerfConfig, ["--config", name])[0]
        render = config.render
        return list(
            nerf_build.plain_fields(config.model, render.N_importance > 0, render.sampler == "proposal").parameters()
        )


def sum_seconds(size: float, place: Sequence[float]) -> float:
    """Seconds of a sum of gradients of ``size`` bytes by the model."""
    gpus, computers, link, card = place
    each = int(gpus // computers)
    seconds = 2 * (each - 1) / each * size / link + 2 * (each - 1) * HOP
    if computers > 1:
        seconds += 2 * (computers - 1) / computers * size / card + 2 * (computers - 1) * HOP
    return seconds


def model_rows() -> list[list[str]]:
    """Table of the model: bytes of a step, of which hash tables; the time of their sum, and the smallest step."""
    rows = [["preset", "MB a step", "in hash tables", "GPUs", "sum, ms", "least step, ms"]]
    for name in PRESETS:
        parameters = parameters_of(name)
        size = 4.0 * sum(p.numel() for p in parameters)
        hashed = 4.0 * sum(p.numel() for p in parameters if p.ndim == 2 and p.shape[1] <= 8 and len(p) > 1 << 12)
        for words, place in PLACES.items():
            seconds = sum_seconds(size, place)
            fixed = seconds + (place[0] - 1) * CPU_HOP + ADAM * size / MEMORY
            least = EFFICIENT / (1 - EFFICIENT) * place[0] * fixed
            rows.append([name, f"{size / 1e6:.2f}", f"{hashed / size:.0%}", words, f"{1e3 * seconds:.2f}"])
            rows[-1].append(f"{1e3 * least:.0f}")
    return rows


def print_model(report: Report) -> None:
    """Print the model and its assumptions."""
    report("model of communication, in ms (not measured):")
    report(tables.as_text(model_rows()))
    report(f"{EXCHANGED} bytes more of each process for figures and decisions")
    report(ASSUMED)


def measure(options: NerfConfig, args: argparse.Namespace, report: Report) -> None:
    """Measure one process and several by turns, and print the figures."""
    alone = {name: Side(name, Alone, options) for name in ("1 process", "the same again")}
    joint = Side("several", Together, options, args.processes, children=True)
    report(f"{args.config}, {options.train.N_rand} rays; {joint.words}; {args.rounds} rounds of {args.steps} steps")
    every = {**alone, "several": joint}
    busy: dict[str, list[float]] = {name: [] for name in every}

    def seconds(name: str) -> float:
        found = every[name].call("seconds", args.steps)
        busy[name].append(every[name].call("busy"))
        return float(found)

    found = sides.by_turns({name: partial(seconds, name) for name in every}, args.rounds)
    for name, values in found.items():
        words = f"{args.processes} processes" if name == "several" else name
        used = 1e3 * statistics.median(busy[name])
        report(f"{words}: {1e3 * statistics.median(values):.1f} ms a step, {used:.1f} ms of the busiest processor")
    for kind, words in (("sum_seconds", "sum of the gradients"), ("exchange_seconds", "exchange of figures")):
        report(f"{words}: {1e3 * joint.call(kind, 20):.3f} ms")
    report(f"A/A {sides.ratio_line(sides.ratios(found['1 process'], found['the same again']))}")
    joint.call("end")
    again = sides.ratio_line(sides.ratios(busy["1 process"], busy["the same again"]))
    report(f"processor time, A/A {again}")
    report(f"processor time {sides.ratio_line(sides.ratios(busy['1 process'], busy['several']))}")
    print_model(report)
    report(sides.ratio_line(sides.ratios(found["1 process"], found["several"])))


def main() -> None:
    """Measure and print."""
    reader = sides.parser(__doc__)
    ours.add_options(reader, "fast/fern.txt")
    reader.add_argument("--processes", type=sides.count, default=2, help="number of processes")
    reader.add_argument("--rounds", type=sides.count, default=12, help="rounds in which the sides take turns")
    reader.add_argument("--steps", type=sides.count, default=3, help="steps of each side in a round")
    reader.add_argument("--model", action="store_true", help="print the model of communication alone")
    args = reader.parse_args()
    args.device = "cpu"
    torch.set_num_threads(1)
    report = Report(args.out)
    if args.model:
        print_model(report)
        return
    measure(ours.options_of(args), args, report)


if __name__ == "__main__":
    sides.enter(main)
