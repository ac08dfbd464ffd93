"""Training with records: what every kind of run does around its steps.

The options and the journal are written, κ and row norms recorded, checkpoints saved; what is particular to a kind of
run comes as more hooks.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from enerf import config as options
from enerf.conditioning import spectrum
from enerf.config import AnyConfig
from enerf.evaluation import report
from enerf.evaluation.report import Journal
from enerf.training import loop, resume, schedule, state
from enerf.training.loop import Hook, Progress, R
from enerf.training.state import State

log = logging.getLogger("enerf")

LayerReport = dict[str, dict[str, float]]  # layer -> κ, row norms ...


def fit(
    config: AnyConfig,
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
    report.write_atomic(config.folder / "config.txt", options.to_text(config))
    saved = {"kind": config.kind, **(told or {}), **options.to_dict(config)}

    def save(training: State) -> None:
        state.save(training, config.folder, saved)

    journal, progress, started_at = Journal(config.folder, training.step), Progress(unit), training.step
    records = _records(config, training, journal, progress, spectra)
    try:
        why = loop.train_loop(
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
        if training.step > started_at or not state.checkpoints(config.folder):
            save(training)
    finally:
        journal.close()
    if why == "interrupted":
        log.info("saved at step %d: run the same command again to go on", training.step)
        raise KeyboardInterrupt


def _records(
    config: AnyConfig,
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
