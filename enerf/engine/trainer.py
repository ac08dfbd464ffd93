"""The loop: steps until an end, hooks between them, a progress bar, and clean stops.

What would point backwards (validation, logging, checkpoints) is a hook passed in.
"""

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from tqdm import tqdm

from enerf.conditioning.diagnostics import spectrum
from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.core import io
from enerf.core.errors import NotFinite
from enerf.core.progress import progress_bar
from enerf.engine import checkpoint, resume, schedule
from enerf.engine.checkpoint import State, set_learning_rate
from enerf.engine.journal import Journal

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class Hook:
    """Something to do after every ``every`` steps (0: never), and after the last one if ``at_end``.

    Its seconds do not count as training.
    """

    every: int
    call: Callable[[State], None]
    at_end: bool = False


@runtime_checkable
class Report(Protocol):
    """What one step saw."""

    @property
    def loss(self) -> float:
        """What is followed downwards."""
        ...

    @classmethod
    def averaged(cls, reports: Sequence[Any]) -> dict[str, float]:
        """The figures of some steps together, by name, the loss among them: for records and the progress bar."""
        ...


R = TypeVar("R", bound=Report)


@dataclass
class Progress:
    """Averages since the last record; ``unit`` is what a step takes some of: rays, points."""

    unit: str = "rays"
    seen: int = 0
    seconds: float = 0.0
    reports: list[Any] = field(default_factory=list)

    def take(self) -> dict[str, float]:
        """The averages, and start anew."""
        taken = type(self.reports[0]).averaged(self.reports) if self.reports else {}
        taken[f"{self.unit}_per_second"] = self.seen / max(self.seconds, 1e-9)
        self.seen, self.seconds, self.reports = 0, 0.0, []
        return taken


def train_loop(
    state: State,
    step: Callable[[State], R],
    schedule: Callable[[State], float],
    progress: Progress,
    hooks: Sequence[Hook],
    *,
    n_iters: int,
    max_seconds: float | int = 0.0,
    per_step: int = 0,
    watch: Callable[[State, R], None] | None = None,
) -> str:
    """Why training ended: ``finished`` (``n_iters``), ``time`` (``max_seconds``) or ``interrupted`` (a signal).

    ``step`` adds a gradient, ``schedule`` says the learning rate of the next step, ``watch`` sees what every step saw;
    a step takes ``per_step`` of the progress's unit. Hooks run between steps; those that are due at the end do not run
    when the loop is interrupted, because the same run goes on later.

    Raises
    ------
    NotFinite
        If the loss or a gradient is not finite; the weights are left as before that step.
    """
    with _interruptible() as asked_to_stop, _bar(state, n_iters) as bar:
        while state.step < n_iters and not _time_is_up(state, max_seconds):
            if asked_to_stop():
                return "interrupted"
            began = time.perf_counter()
            set_learning_rate(state.optimiser, schedule(state))
            report = one_step(state, step)
            if watch is not None:
                watch(state, report)
            elapsed = time.perf_counter() - began
            state.seconds += elapsed
            progress.reports.append(report)
            progress.seen += per_step
            progress.seconds += elapsed
            left = _seconds_left(state, n_iters, max_seconds)
            bar.set_postfix_str(_describe(report, per_step / max(elapsed, 1e-9), progress.unit, left), refresh=False)
            bar.update()
            ended = state.step >= n_iters or _time_is_up(state, max_seconds)
            _call_hooks(hooks, state, ended)
    return "finished" if state.step >= n_iters else "time"


def one_step(state: State, step: Callable[[State], R]) -> R:
    """What one step saw: its gradient is computed, checked and followed.

    Raises
    ------
    NotFinite
        If the loss or a gradient is not finite; nothing but the gradients has changed then.
    """
    state.optimiser.zero_grad(set_to_none=False)
    report = step(state)
    if not math.isfinite(report.loss):
        raise NotFinite(f"step {state.step}: the loss is {report.loss}")
    named = [(n, p.grad) for n, p in state.model.named_parameters() if p.grad is not None]
    if not math.isfinite(float(torch.nn.utils.get_total_norm([g for _, g in named]))):
        bad = next((n for n, g in named if not torch.isfinite(g).all()), "the total norm of the gradients")
        raise NotFinite(f"step {state.step}: the gradient is not finite in {bad}")
    state.optimiser.step()
    state.step += 1
    return report


def _call_hooks(hooks: Sequence[Hook], state: State, ended: bool) -> None:
    """Run what is due; its time counts as evaluation."""
    began = time.perf_counter()
    for hook in hooks:
        if (hook.every and state.step % hook.every == 0) or (ended and hook.at_end):
            hook.call(state)
    state.eval_seconds += time.perf_counter() - began


def _time_is_up(state: State, max_seconds: float | int) -> bool:
    return 0 < max_seconds <= state.seconds


def _bar(state: State, n_iters: int) -> tqdm:
    """Progress bar of the remaining steps."""
    shown = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    return progress_bar(n_iters, "train", "step", initial=state.step, bar_format=shown)


def _describe(report: Report, per_second: float, unit: str, seconds_left: float) -> str:
    """Figures, speed and the time that is left, for the bar."""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in type(report).averaged([report]).items())
    return f"{figures}, {per_second:,.0f} {unit}/s, ETA {tqdm.format_interval(seconds_left)}"


def _seconds_left(state: State, n_iters: int, max_seconds: float | int) -> float:
    """The time to the end, were all steps as long as those so far."""
    left = (n_iters - state.step) * state.seconds / max(state.step, 1)
    return min(left, max(0.0, max_seconds - state.seconds)) if max_seconds > 0 else left


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM become a question the loop asks; a second Ctrl-C stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        log.warning("stopping after this step (%s)", signal.Signals(number).name)

    try:
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller stops us
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


log = logging.getLogger("enerf")

LayerReport = dict[str, dict[str, float]]  # layer -> κ, row norms ...


def fit(
    config: RunConfig,
    training: State,
    step: Callable[[State], R],
    hooks: Callable[[Journal], Sequence[Hook]],
    *,
    unit: str,
    per_step: int,
    watch: Callable[[State, R], None] | None = None,
    told: dict[str, Any] | None = None,
    spectra: Callable[[State], LayerReport] | None = None,
) -> None:
    """Train to the end of ``N_iters`` or ``max_seconds``, and save.

    Parameters
    ----------
    config, training
        The run, and its state, resumed or fresh.
    step, watch, unit, per_step
        As for ``loop.fit`` and ``Progress``.
    hooks
        More to do between steps, records aside.
    told
        More that checkpoints tell beside the options.
    spectra
        The record of κ and row norms; of all linear layers unless told otherwise.

    Raises
    ------
    InputError
        If the results cannot be written.
    NotFinite
        If training met a value that is not finite; the last good checkpoint stays.
    KeyboardInterrupt
        If the run was interrupted; it has been saved.
    """
    if config.run.no_reload:
        resume.set_aside(config.folder)  # only now: a mistake before leaves the earlier run as it is
    io.write_atomic(config.folder / "config.txt", parser.to_text(config))
    saved = {"kind": config.kind, **(told or {}), **parser.to_dict(config)}

    def save(training: State) -> None:
        checkpoint.save(training, config.folder, saved)

    journal, progress, started_at = Journal(config.folder, training.step), Progress(unit), training.step
    records = _records(config, training, journal, progress, spectra)
    try:
        why = train_loop(
            training,
            step,
            partial(schedule.of_step, config.train),
            progress,
            [*records, *hooks(journal), Hook(config.run.i_weights, save)],
            n_iters=config.train.N_iters,
            max_seconds=config.train.max_seconds,
            per_step=per_step,
            watch=watch,
        )
        if training.step > started_at or not checkpoint.checkpoints(config.folder):
            save(training)
    finally:
        journal.close()
    if why == "interrupted":
        log.info("saved at step %d: run the same command again to go on", training.step)
        raise KeyboardInterrupt


def _records(
    config: RunConfig,
    training: State,
    journal: Journal,
    progress: Progress,
    spectra: Callable[[State], LayerReport] | None,
) -> list[Hook]:
    """What is written into the journal of every run."""
    names = spectrum.linear_layers(training.model)

    def record(training: State) -> None:
        lrate = training.optimiser.param_groups[0]["lr"]
        journal.record(training.step, {**progress.take(), "lrate": lrate, "seconds": training.seconds})

    def record_spectrum(training: State) -> None:
        told = spectra(training) if spectra else spectrum.layer_report(training.model, names)
        journal.record(training.step, {"spectrum": told})

    r = config.run
    return [Hook(r.i_print, record, at_end=True), Hook(r.i_spectrum, record_spectrum, at_end=r.i_spectrum > 0)]
