"""Training loop: gradient steps, hooks between them, a progress bar, and a clean stop on a signal.

The loop knows no task: validation, logging and checkpoints are hooks that the caller passes in.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import torch
from tqdm import tqdm

from enerf.conditioning.diagnostics import spectrum
from enerf.config import parser
from enerf.config.options import RunConfig
from enerf.core import io, spare
from enerf.core.errors import InputError, NotFinite, ProcessLost
from enerf.core.progress import progress_bar
from enerf.engine import checkpoint, distributed, joint_start, resume, saver, schedule, signals
from enerf.engine.checkpoint import State
from enerf.engine.followers import SilentJournal, SilentSaver
from enerf.engine.joint_step import JointStep, Part
from enerf.engine.journal import Journal
from enerf.engine.optimizers import set_learning_rate
from enerf.engine.saver import Saver, mention_rescued

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class Hook:
    """Function called after every ``every`` steps (0: never), and after the last step if ``at_end``.

    Its time does not count as training time.
    """

    every: int
    call: Callable[[State], None]
    at_end: bool = False


@runtime_checkable
class Report(Protocol):
    """Figures of one training step."""

    @property
    def loss(self) -> float:
        """Training loss."""
        ...

    @classmethod
    def averaged(cls, reports: Sequence[Any]) -> dict[str, float]:
        """Return the mean figures of several steps by name, ``loss`` among them, for journal and progress bar."""
        ...


R = TypeVar("R", bound=Report)
MAX_REPORTS = 10_000
ROWS = 16  # in which a gradient is reduced


@dataclass
class Progress:
    """Figures since the last journal record; ``unit`` names the samples of a batch (rays, points), for the speed.

    ``count`` is the number of samples since then, ``seconds`` the training time. Averages are those of the last
    ``MAX_REPORTS`` steps at most, so that memory is bounded.
    """

    unit: str = "rays"
    count: int = 0
    seconds: float = 0.0
    reports: deque[Any] = field(default_factory=lambda: deque(maxlen=MAX_REPORTS))

    def take(self) -> dict[str, float]:
        """Return the averages and the speed, and reset."""
        averages = type(self.reports[0]).averaged(list(self.reports)) if self.reports else {}
        averages[f"{self.unit}_per_second"] = self.count / max(self.seconds, 1e-9)
        self.count, self.seconds = 0, 0.0
        self.reports.clear()
        return averages


def train_loop(
    state: State,
    step: Callable[[State], R],
    learning_rate: Callable[[State], float],
    progress: Progress,
    hooks: Sequence[Hook],
    *,
    n_iters: int,
    max_seconds: float | int = 0.0,
    per_step: int = 0,
    watch: Callable[[State, R], None] | None = None,
    stop_requested: Callable[[], bool] | None = None,
    counted: Callable[[float], float] = float,
) -> str:
    """Train until ``n_iters`` steps, ``max_seconds`` of training, or a signal.

    Parameters
    ----------
    state
        Training state, updated in place.
    step
        Computes the loss of a batch and adds its gradient to the parameters.
    learning_rate
        Learning rate of the next step.
    progress
        Accumulates the figures of the steps.
    hooks
        Called between steps. Hooks that are due at the end are not called if the loop is interrupted.
    n_iters, max_seconds
        End of training; ``max_seconds`` 0: no limit of time.
    per_step
        Batch size, for the speed.
    watch
        Called with the state and the report of every step.
    stop_requested
        Whether to stop before the next step; then signals are the caller's. By default, whether a signal came.
    counted
        Seconds that count for a step, from those that it took here: several processes count the same.

    Returns
    -------
    str
        ``finished`` (``n_iters`` reached), ``time`` (``max_seconds`` reached) or ``interrupted`` (by a signal).

    Raises
    ------
    NotFinite
        If the loss or a gradient is not finite; the weights are those before that step.
    """
    signal_came = signals.deferred() if stop_requested is None else nullcontext(stop_requested)
    with signal_came as is_to_stop, _bar(state, n_iters) as bar:
        while state.step < n_iters and not _time_is_up(state, max_seconds):
            if is_to_stop():
                return "interrupted"
            began = time.perf_counter()
            set_learning_rate(state.optimizer, learning_rate(state))
            report = one_step(state, step)
            if watch is not None:
                watch(state, report)
            elapsed = counted(time.perf_counter() - began)
            state.seconds += elapsed
            progress.reports.append(report)
            progress.count += per_step
            progress.seconds += elapsed
            left = _seconds_left(state, n_iters, max_seconds)
            bar.set_postfix_str(_describe(report, per_step / max(elapsed, 1e-9), progress.unit, left), refresh=False)
            bar.update()
            ended = state.step >= n_iters or _time_is_up(state, max_seconds)
            _call_hooks(hooks, state, ended)
    return "finished" if state.step >= n_iters else "time"


def one_step(state: State, step: Callable[[State], R]) -> R:
    """Compute the gradient, check that it is finite, and take one optimizer step; return the report of the step.

    Raises
    ------
    NotFinite
        If the loss or a gradient is not finite; only the gradients have changed then.
    """
    _clear_gradients(state.optimizer)
    report = step(state)
    if not math.isfinite(report.loss):
        raise NotFinite(f"step {state.step}: the loss is {report.loss}")
    named = [(n, p.grad) for n, p in state.model.named_parameters() if p.grad is not None]
    if not math.isfinite(_total_norm([g for _, g in named])):
        bad = next((n for n, g in named if not torch.isfinite(g).all()), "the total norm of the gradients")
        raise NotFinite(f"step {state.step}: the gradient is not finite in {bad}")
    state.is_consistent = False
    state.optimizer.step()
    state.step += 1
    state.is_consistent = True
    return report


def _clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Remove the gradients of the last step; on a GPU set them to zero, since a CUDA graph may have their addresses.

    A parameter without gradient takes the first one of a backward pass as it is, instead of adding it to zeros.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    on_gpu = any(p.is_cuda for p in parameters)
    if not on_gpu:
        spare.keep(parameters)
    optimizer.zero_grad(set_to_none=not on_gpu)


def _total_norm(gradients: Sequence[torch.Tensor]) -> float:
    """Norm of all gradients together, with at most one synchronization of a GPU.

    On a CPU each is reduced in rows, which torch's threads share. ``torch.dot``, whose threads are those of a library
    for matrix products, takes several times as long between operations of torch.
    """
    if any(g.device.type != "cpu" for g in gradients):
        return float(torch.nn.utils.get_total_norm(gradients))
    return math.hypot(*(float(_norm(g.reshape(-1))) for g in gradients))


def _norm(values: torch.Tensor) -> torch.Tensor:
    """Norm of a vector."""
    whole = values.numel() // ROWS * ROWS
    rows = torch.linalg.vector_norm(values[:whole].view(ROWS, -1), dim=1)
    return torch.linalg.vector_norm(torch.cat([rows, values[whole:]]))


def _call_hooks(hooks: Sequence[Hook], state: State, ended: bool) -> None:
    """Call the hooks that are due; their time counts as evaluation time.

    A hook that cannot write its results is reported in a warning, and the training goes on.
    """
    began = time.perf_counter()
    for hook in hooks:
        if (hook.every and state.step % hook.every == 0) or (ended and hook.at_end):
            try:
                hook.call(state)
            except InputError as error:
                log.warning("step %d: %s; the training goes on", state.step, error)
    state.eval_seconds += time.perf_counter() - began


def _time_is_up(state: State, max_seconds: float | int) -> bool:
    return 0 < max_seconds <= state.seconds


def _bar(state: State, n_iters: int) -> tqdm:
    """Progress bar of the remaining steps."""
    shown = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
    return progress_bar(max(n_iters, state.step), "train", "step", initial=state.step, bar_format=shown)


def _describe(report: Report, per_second: float, unit: str, seconds_left: float) -> str:
    """Return the figures of a step, the speed and the remaining time, for the progress bar."""
    figures = ", ".join(f"{name} {value:.4g}" for name, value in type(report).averaged([report]).items())
    return f"{figures}, {per_second:,.0f} {unit}/s, ETA {tqdm.format_interval(seconds_left)}"


def _seconds_left(state: State, n_iters: int, max_seconds: float | int) -> float:
    """Return the estimated seconds of training that are left, at the mean pace so far and within ``max_seconds``."""
    left = (n_iters - state.step) * state.seconds / max(state.step, 1)
    return min(left, max(0.0, max_seconds - state.seconds)) if max_seconds > 0 else left


LayerReport = dict[str, dict[str, float]]  # layer -> condition number, row norms ...


def fit(
    config: RunConfig,
    training: State,
    step: Callable[[State], R | Part[R]],
    hooks: Callable[[Journal], Sequence[Hook]],
    *,
    unit: str,
    per_step: int,
    watch: Callable[[State, R], None] | None = None,
    metadata: dict[str, Any] | None = None,
    spectra: Callable[[State], LayerReport] | None = None,
) -> None:
    """Train until ``N_iters`` or ``max_seconds``; write the journal and the checkpoints.

    Of several processes (``engine.distributed``) the first one writes. All call the task's hooks, at the same steps.

    Parameters
    ----------
    config, training
        The run, and its training state, resumed or new.
    step, watch, per_step
        As in ``train_loop``; of several processes ``step`` returns the figures of this one's share.
    unit
        Name of the samples of a batch: rays, points, images.
    hooks
        Function from the journal to the task's hooks, called besides those that write the journal.
    metadata
        Entries of the checkpoints' ``config`` besides the options.
    spectra
        Condition numbers and row norms by layer; default: those of all linear layers.

    Raises
    ------
    InputError
        If the results cannot be written.
    NotFinite
        If the loss or a gradient is not finite; the state before that step has been saved.
    ProcessLost
        If another process has ended; the state before that step has been saved.
    KeyboardInterrupt
        If the run was interrupted; a checkpoint has been saved.
    """
    team, started_at, metadata = distributed.current(), training.step, metadata or {}
    opened = partial(_writers if team.is_first else _followers, config, training, metadata)
    journal, saves, is_new = joint_start.agreed(opened)
    progress = Progress(unit)
    records = _records(config, training, journal, progress, spectra) if team.is_first else []
    saving = [Hook(config.run.i_weights, saves.by_step), Hook(1, saves.by_time)]
    with signals.deferred(announced=not team.is_joint) as stop_requested:
        alone_or_joint = _steps(step, stop_requested)
        try:
            why = train_loop(
                training,
                alone_or_joint.step,
                partial(schedule.learning_rate, config.train),
                progress,
                [*records, *hooks(journal), *saving],
                n_iters=config.train.N_iters,
                max_seconds=config.train.max_seconds,
                per_step=per_step,
                watch=watch,
                stop_requested=alone_or_joint.is_to_stop,
                counted=alone_or_joint.counted,
            )
        except NotFinite as error:
            failed = NotFinite(f"{error}; {saves.after_failure(training)}")
            if team.is_joint:
                signals.ignore()  # torchrun ends the processes that are left
            raise failed from None
        except ProcessLost as error:
            lost = saves.after_loss(training, error)
            signals.ignore()  # torchrun ends the processes that are left
            raise lost from None
        except Exception:
            log.warning("training ended by an error; %s", saves.after_failure(training))
            raise
        else:
            if training.step > started_at or is_new or not checkpoint.is_kept(config.folder, training.step):
                saves.at_end(training)
            else:
                checkpoint.prune_recent(config.folder, 0)
        finally:
            journal.close()
    joint_start.warn_if_different(training)
    is_stopped = any(each[0] for each in team.exchange([float(stop_requested())]))
    if why == "interrupted" or is_stopped:  # a signal may also have come in the last step, or while saving
        same = "the same command without --no_reload" if config.run.no_reload else "the same command again"
        log.info("saved at step %d: run %s to resume", training.step, same)
        raise KeyboardInterrupt


@dataclass(frozen=True)
class _Steps(Generic[R]):
    """The step of this process alone, or of several; whether to stop before the next one; seconds that count."""

    step: Callable[[State], R]
    is_to_stop: Callable[[], bool]
    counted: Callable[[float], float] = float


def _steps(step: Callable[[State], R | Part[R]], stop_requested: Callable[[], bool]) -> _Steps[R]:
    """Return the step, by itself or of several processes."""
    team = distributed.current()
    if not team.is_joint:
        return _Steps(cast(Callable[[State], R], step), stop_requested)
    joint = JointStep(team, cast(Callable[[State], Part[R]], step), stop_requested)
    return _Steps(joint, joint.is_to_stop, joint.seconds)


def _writers(config: RunConfig, training: State, metadata: dict[str, Any]) -> tuple[Journal, Saver, bool]:
    """Write the options of a run; return what writes its journal and its checkpoints, and whether it is new."""
    if config.run.no_reload:
        resume.rename_old_results(config.folder)  # after the set-up, so that its errors leave the earlier run unchanged
    is_new = not checkpoint.checkpoints(config.folder)
    if resume.steps_left(config, training.step, training.seconds) or not (config.folder / "config.txt").is_file():
        _write_config(config, metadata)
    elif training.step >= config.train.N_iters > 0:
        log.info("nothing is left to train: step %d of --N_iters %d", training.step, config.train.N_iters)
    if is_new:
        mention_rescued(config)
    saved = {"kind": config.kind, **metadata, **parser.to_dict(config)}
    saves = Saver(config, saved, -1 if is_new else training.step)
    return Journal(config.folder, training.step), saves, is_new


def _followers(config: RunConfig, training: State, metadata: dict[str, Any]) -> tuple[Journal, Saver, bool]:
    """Return the same for a process that is not the first: they write nothing."""
    saved = {"kind": config.kind, **metadata, **parser.to_dict(config)}
    return SilentJournal(), SilentSaver(config, saved, training.step), True


def _write_config(config: RunConfig, metadata: dict[str, Any]) -> None:
    """Write ``config.txt``: the options of the last steps, and as comments those that changed before."""
    lines = [
        f"# step {entry['step']}: {name} was {before!r}, then {after!r}\n"
        for entry in metadata.get("history", [])
        for name, (before, after) in entry.get("options", {}).items()
    ]
    io.write_atomic(config.folder / "config.txt", "".join(lines) + saver.config_text(config))


def _records(
    config: RunConfig,
    training: State,
    journal: Journal,
    progress: Progress,
    spectra: Callable[[State], LayerReport] | None,
) -> list[Hook]:
    """Return the hooks that write the journal of every run."""
    names = spectrum.linear_layers(training.model)

    def record(training: State) -> None:
        lrate = training.optimizer.param_groups[0]["lr"]
        journal.record(training.step, {**progress.take(), "lrate": lrate, "seconds": training.seconds})

    def record_spectrum(training: State) -> None:
        report = spectra(training) if spectra else spectrum.layer_report(training.model, names)
        journal.record(training.step, {"spectrum": report})

    r = config.run
    return [Hook(r.i_print, record, at_end=True), Hook(r.i_spectrum, record_spectrum, at_end=r.i_spectrum > 0)]
