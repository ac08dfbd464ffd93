"""Training of image classifiers: prepare the run, fit, evaluate."""

import logging
from functools import partial
from typing import Any

from enerf.core import rng
from enerf.datasets.labelled.loader import Batches
from enerf.engine import distributed, joint_start, trainer
from enerf.engine.checkpoint import State
from enerf.engine.joint_step import Part
from enerf.engine.journal import Journal
from enerf.engine.trainer import Hook
from enerf.fields.backends.registry import Resolved
from enerf.tasks.classifier import evaluate, optimizers, setup
from enerf.tasks.classifier import step as classifier_step
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.classifier.evaluate import Spectra
from enerf.tasks.classifier.setup import ClassifierRun
from enerf.tasks.classifier.step import ClassifierReport, Targets

log = logging.getLogger("enerf")

CURVE = ("test_accuracy", "test_loss", "fit_accuracy", "fit_loss", "kappa")


def train(config: ClassifierConfig, shared: Resolved | None = None) -> dict[str, Any] | None:
    """Train a run to its end and evaluate it; return its metrics, or None with ``--no_final_eval``.

    ``shared`` is as for ``setup.prepare``.

    Raises
    ------
    InputError
        If the options, the images or the checkpoint cannot be used, or another process writes to the run.
    NotFinite
        If the loss or a gradient is not finite; the state before that step has been saved.
    KeyboardInterrupt
        If the run was interrupted; a checkpoint was saved.
    """
    with joint_start.writing(config.folder):
        return _train(config, shared)


def _train(config: ClassifierConfig, shared: Resolved | None) -> dict[str, Any] | None:
    """Train and evaluate a run whose folder is locked."""
    run = joint_start.prepared(partial(setup.prepare, config), shared)
    t, spectra, team = run.config.train, Spectra(run), distributed.current()
    team.require_share("N_batch", t.N_batch)
    with Batches(run.data.train, t.N_batch, t.seed, run.config.data.augment) as batches:
        trainer.fit(
            run.config,
            run.state,
            partial(share_step if team.is_joint else step, run, batches),
            partial(_hooks, run, spectra),
            unit="images",
            per_step=t.N_batch,
            metadata={
                **{"classes": list(run.data.classes), "channels": run.data.channels, "size": run.data.size},
                **run.record.saved(),
            },
            spectra=spectra,
        )
    if run.config.run.no_final_eval:
        return None
    return team.of_first(partial(evaluate.finished_metrics, run)) or evaluate.evaluate(run, spectra)


def step(run: ClassifierRun, batches: Batches, training: State) -> ClassifierReport:
    """Add the gradient of one batch to the parameters' ``grad``; return its loss and accuracy counts."""
    t = run.config.train
    run.model.train()
    images, labels = batches.at(training.step)
    return classifier_step.gradient_step(
        run.model,
        classifier_step.standardize(images, run.data.mean, run.data.std, run.device),
        labels.to(run.device),
        Targets(len(run.data.classes), t.label_smoothing, t.mixup),
        precision=run.precision,
        l1=0.0 if t.optimiser.startswith("intrinsic") else t.l1,
        penalized=optimizers.regularized_weights(run.model) if t.l1 else (),
        generator=rng.generator_for(t.seed, training.step) if t.mixup else None,
        share=distributed.current().share,
    )


def share_step(run: ClassifierRun, batches: Batches, training: State) -> Part[ClassifierReport]:
    """Do the same for this process's share of the batch."""
    report = step(run, batches, training)
    return Part([report.loss, float(report.correct), float(report.images)], ClassifierReport.of_sums)


def _hooks(run: ClassifierRun, spectra: Spectra, journal: Journal) -> list[Hook]:
    """Return the hook that appends a point ``[step, seconds, metrics ...]`` to the curve."""

    def evaluate_point(state: State) -> None:
        values = evaluate.curve_point(run, spectra)
        state.curve.append([state.step, state.seconds, *values])
        journal.record(state.step, dict(zip(CURVE, values, strict=True)))

    every = run.config.run.i_eval
    return [Hook(every, evaluate_point, at_end=every > 0)]
