"""Utilities of the benchmarks: sides that take turns, medians with confidence intervals, reports and plots.

A **side** is one of the programs that are compared. A ratio is a median over rounds; its noise is the 95 % confidence
interval of the median from order statistics, for independent rounds, and the whole range for fewer than six rounds.
"""

import argparse
import importlib.metadata
import math
import multiprocessing as mp
import os
import shlex
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from enerf.cli import app
from enerf.core import io
from enerf.core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CODE = ("enerf", "configs", ":(glob)benchmarks/*.py")  # files that determine the results
OPEN: list["Side"] = []
SPAWN = mp.get_context("spawn")  # a fresh interpreter: sides change settings of their whole process


class Side:
    """An object in a separate process, whose methods are called from this one.

    ``make(*args)`` builds it there; its attribute ``words`` describes it. Its standard output is discarded. With
    ``children`` it may start processes, and has to be closed. Without ``wait`` it is built in the background, until
    ``ready`` is called.
    """

    def __init__(
        self, name: str, make: Callable[..., Any], *args: Any, children: bool = False, wait: bool = True
    ) -> None:
        self.name, self.patience = name, 10.0
        self._pipe, there = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(there, make, args), daemon=not children)
        self._process.start()
        OPEN.append(self)
        there.close()  # so that the end of that process raises EOFError here
        self.words = ""
        if wait:
            self.ready()

    def ready(self) -> "Side":
        """Wait until the object is built; raises ``InputError`` with the reason if it cannot be."""
        self.words = self._answer()
        return self

    def call(self, method: str, *args: Any, limit: float | None = None) -> Any:
        """Call a method of the object; raises ``TimeoutError`` if it takes longer than ``limit`` seconds."""
        self._pipe.send((method, args))
        return self._answer(limit)

    def close(self) -> None:
        """End the process; one that is not idle is killed after ``patience`` seconds."""
        if self in OPEN:
            OPEN.remove(self)
            self._pipe.close()  # an idle process then exits
            self._process.join(self.patience)
            self._process.kill()
            self._process.join()

    def _answer(self, limit: float | None = None) -> Any:
        try:
            if not self._pipe.poll(limit):
                self.patience = 0.0
                self.close()
                raise TimeoutError(f"{self.name} took longer than {limit:g} s")
            done, answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise InputError(f"the process of {self.name} ended without an answer: did memory run out?") from None
        if not done:
            raise InputError(f"{self.name}: {answer.removeprefix('error: ')}")
        return answer


def _serve(pipe: Any, make: Callable[..., Any], args: Sequence[Any]) -> None:
    """Build the object and execute calls until the other end of the pipe is closed."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - open until the process ends
    try:
        made = make(*args)
        pipe.send((True, made.words))
        while True:
            method, given = pipe.recv()
            pipe.send((True, getattr(made, method)(*given)))
    except (EOFError, KeyboardInterrupt):
        return
    except (InputError, SystemExit) as mistake:
        pipe.send((False, str(mistake)))
    except Exception as error:
        traceback.print_exc()
        pipe.send((False, f"failed: {error!r}"))


def by_turns(
    timers: Mapping[str, Callable[[], float]],
    rounds: int,
    on_round: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, list[float]]:
    """Values of each callable in each round; the order rotates, so that drift of the computer affects all equally."""
    names, found = list(timers), {name: [] for name in timers}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(timers[name]())
        if on_round is not None:
            on_round(turn, {name: values[-1] for name, values in found.items()})
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Quotients of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def ratio_line(values: Sequence[float], digits: int = 2) -> str:
    """The last line of every benchmark."""
    low, high = interval(values)
    return f"ratio={statistics.median(values):.{digits}f} noise={low:.{digits}f}..{high:.{digits}f}"


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the median; the whole range for fewer than six values.

    >>> interval([3, 1, 2]), interval(range(1, 11))
    ((1, 3), (2, 9))
    """
    ordered, n = sorted(values), len(values)
    below, left = 0.0, 0
    for k in range(n // 2):
        below += math.comb(n, k) / 2**n
        if below > 0.025:
            break
        left = k
    return ordered[left], ordered[n - 1 - left]


class Report:
    """Prints lines, and writes them to a file if given; begins with the command, commit, versions and device."""

    def __init__(self, out: Path | None, device: torch.device | None = None) -> None:
        self.out, self.lines = out, []
        self(f"# {command_line()}")
        self(f"# commit {commit()}, torch {importlib.metadata.version('torch')}, {machine_words(device)}")

    def __call__(self, text: str) -> None:
        """Print a line, and write it to the file."""
        print(text, flush=True)
        self.lines.append(text)
        if self.out is not None:
            with io.atomic_path(self.out) as temporary, io.os_errors_as_input_errors(self.out):
                temporary.write_text("\n".join(self.lines) + "\n", encoding="utf-8")


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with the options of all benchmarks."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0], allow_abbrev=False)
    made.add_argument("--out", type=Path, help="also write the output to this file")
    return made


def count(text: str) -> int:
    """A whole number of at least 1, for argparse's ``type``.

    >>> count("3")
    3
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number of at least 1")
    return value


def command_line() -> str:
    """The command line, with absolute paths reduced to their last component."""
    words = [f"benchmarks/{Path(sys.argv[0]).name}"]
    for word in sys.argv[1:]:
        option, equals, value = word.rpartition("=")
        words.append(option + equals + (Path(value).name if Path(value).is_absolute() else value))
    return "python " + shlex.join(words)


def commit() -> str:
    """The commit of this repository, with a plus if files differ from it; ``ENERF_COMMIT`` if git fails."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("ENERF_COMMIT", "unknown")


def machine_words(device: torch.device | None = None) -> str:
    """Name of the GPU if it is the device, else of the processor with its cores and threads."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {torch.get_num_threads()} threads"


def draw(panels: Sequence[Mapping[str, Any]], path: Path, rows: int = 1) -> None:
    """Plot curves to a PNG; each panel has ``curves`` (name -> x and y), ``x``, ``y``, and ``log`` ("x", "y", "xy")."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = -(-len(panels) // rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        for name, (x, y) in panel["curves"].items():
            axis.plot(x, y, marker="o", markersize=3, label=name)
        axis.set(xlabel=panel["x"], ylabel=panel["y"])
        if "x" in panel["log"]:
            axis.set_xscale("log")
            places = sorted({place for x, _ in panel["curves"].values() for place in x})
            axis.set_xticks(places[:: 1 + len(places) // 9], minor=False)
            axis.xaxis.set_major_formatter(lambda place, _: f"{place:.0f}")
            axis.xaxis.set_minor_formatter(lambda place, _: "")
        if "y" in panel["log"]:
            axis.set_yscale("log")
        axis.grid(visible=True, which="both", alpha=0.3)
        axis.legend()
    figure.tight_layout()
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        figure.savefig(temporary, dpi=120)
    pyplot.close(figure)


def enter(main: Callable[[], int | None]) -> None:
    """Run a benchmark: errors of the user print one sentence; all sides are closed at the end."""
    try:
        app.run(main)
    finally:
        for side in list(OPEN):
            side.close()
