"""The loop: steps until an end, hooks between them, a progress bar, and clean stops.

What would point backwards (validation, logging, checkpoints) is a hook passed in.
"""

import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch
from tqdm import tqdm

from enerf.training.state import State, set_learning_rate
from enerf.training.steps import StepReport
from enerf.types import NotFinite

log = logging.getLogger("enerf")

BLANK_STEPS = 500  # consecutive steps of a blank image that count as a collapse
BLANK_OPACITY, BLANK_VARIATION = 0.01, 0.02


@dataclass(frozen=True)
class Hook:
    """Something to do after every ``every`` steps (0: never), and after the last one if ``at_end``.

    Its seconds do not count as training.
    """

    every: int
    call: Callable[[State], None]
    at_end: bool = False


@dataclass
class Progress:
    """Averages since the last record."""

    rays: int = 0
    seconds: float = 0.0
    reports: list[StepReport] = field(default_factory=list)

    def take(self) -> dict[str, float]:
        """The averages, and start anew."""
        n = max(1, len(self.reports))
        mse = sum(r.mse for r in self.reports) / n
        taken = {
            "loss": sum(r.loss for r in self.reports) / n,
            "psnr": -10 * math.log10(max(mse, 1e-12)),
            "opacity": sum(r.opacity for r in self.reports) / n,
            "rays_per_second": self.rays / max(self.seconds, 1e-9),
        }
        self.rays, self.seconds, self.reports = 0, 0.0, []
        return taken


class CollapseWatch:
    """Notices a blank image: nothing opaque, or one colour for all rays while the photographs vary."""

    def __init__(self, blank_for: int = 0, patience: int = BLANK_STEPS) -> None:
        self.blank_for, self.patience = blank_for, patience

    def collapsed(self, report: StepReport) -> bool:
        """Whether the image has been blank for as long as the patience."""
        flat = report.rgb_std < BLANK_VARIATION * report.target_std
        self.blank_for = self.blank_for + 1 if flat or report.opacity < BLANK_OPACITY else 0
        return self.blank_for >= self.patience


def fit(
    state: State,
    step: Callable[[State], StepReport],
    schedule: Callable[[State], float],
    progress: Progress,
    hooks: Sequence[Hook],
    *,
    n_iters: int,
    max_seconds: float | int = 0.0,
    rays_per_step: int = 0,
) -> str:
    """Why training ended: ``finished`` (``n_iters``), ``time`` (``max_seconds``) or ``interrupted`` (a signal).

    ``step`` adds a gradient, ``schedule`` says the learning rate of the next step. Hooks run between steps; those that
    are due at the end do not run when the loop is interrupted, because the same run goes on later.

    Raises
    ------
    NotFinite
        If the loss or a gradient is not finite; the weights are left as before that step.
    """
    watch = CollapseWatch(state.blank_for, BLANK_STEPS)
    with _interruptible() as asked_to_stop, _bar(state, n_iters) as bar:
        while state.step < n_iters and not _time_is_up(state, max_seconds):
            if asked_to_stop():
                return "interrupted"
            began = time.perf_counter()
            set_learning_rate(state.optimiser, schedule(state))
            report = one_step(state, step)
            _note_collapse(state, watch.collapsed(report))
            state.blank_for = watch.blank_for
            elapsed = time.perf_counter() - began
            state.seconds += elapsed
            progress.reports.append(report)
            progress.rays += rays_per_step
            progress.seconds += elapsed
            left = _seconds_left(state, n_iters, max_seconds)
            bar.set_postfix_str(_describe(report, rays_per_step / max(elapsed, 1e-9), left), refresh=False)
            bar.update()
            ended = state.step >= n_iters or _time_is_up(state, max_seconds)
            _call_hooks(hooks, state, ended)
    return "finished" if state.step >= n_iters else "time"


def one_step(state: State, step: Callable[[State], StepReport]) -> StepReport:
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


def _note_collapse(state: State, collapsed: bool) -> None:
    """Say once that the image is blank, and once that it no longer is."""
    if collapsed and not state.collapsed:
        log.warning(
            "step %d: the rendered image has been blank for %d steps: this run has collapsed; another --seed, a lower "
            "--lrate or --raw_noise_std 0 may help",
            state.step,
            BLANK_STEPS,
        )
    if state.collapsed and not collapsed:
        log.info("step %d: the image is no longer blank", state.step)
    state.collapsed = collapsed


def _time_is_up(state: State, max_seconds: float | int) -> bool:
    return 0 < max_seconds <= state.seconds


def _bar(state: State, n_iters: int) -> tqdm:
    """A progress bar that does not flood a log file."""
    return tqdm(
        total=n_iters,
        initial=state.step,
        unit="step",
        desc="train",
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        bar_format="{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
    )


def _describe(report: StepReport, rays_per_second: float, seconds_left: float) -> str:
    """Loss, PSNR, speed and the time that is left, for the bar."""
    psnr = -10 * math.log10(max(report.mse, 1e-12))
    eta = tqdm.format_interval(seconds_left)
    return f"loss {report.loss:.4f}, {psnr:.2f} dB, {rays_per_second:,.0f} rays/s, ETA {eta}"


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
