"""Hallway 3: labelled images to a trained CNN or transformer and its accuracy.

``train`` reads like the story it is: prepare the run (images, network, optimiser, last checkpoint), train, report.
"""

import logging
from functools import partial
from typing import Any

from enerf.core import rng
from enerf.datasets.labelled.loader import Batches
from enerf.engine import trainer
from enerf.engine.checkpoint import State
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
    """Train a classifier to the end of the run and report; returns its metrics, or None if none were asked for.

    ``shared`` is as for ``classifier_runs.prepare``.

    Raises
    ------
    InputError
        For a user's mistake.
    NotFinite
        If training met a value that is not finite; the last good checkpoint stays.
    KeyboardInterrupt
        If the run was interrupted; it has been saved.
    """
    run = setup.prepare(config, shared)
    t, spectra = run.config.train, Spectra(run)
    with Batches(run.data.train, t.N_batch, t.seed, run.config.data.augment) as batches:
        trainer.fit(
            run.config,
            run.state,
            partial(step, run, batches),
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
    return evaluate.finished_metrics(run) or evaluate.evaluate(run, spectra)


def step(run: ClassifierRun, batches: Batches, training: State) -> ClassifierReport:
    """What one step saw; its gradient is added."""
    t = run.config.train
    run.model.train()
    images, labels = batches.at(training.step)
    return classifier_step.followed(
        run.model,
        classifier_step.standardised(images, run.data.mean, run.data.std, run.device),
        labels.to(run.device),
        Targets(len(run.data.classes), t.label_smoothing, t.mixup),
        precision=run.precision,
        l1=0.0 if t.optimiser.startswith("intrinsic") else t.l1,
        penalised=optimizers.weights(run.model) if t.l1 else (),
        generator=rng.generator_for(t.seed, training.step) if t.mixup else None,
    )


def _hooks(run: ClassifierRun, spectra: Spectra, journal: Journal) -> list[Hook]:
    """What happens between steps: a point of the curve, ``[step, seconds, figures ...]``."""

    def look(training: State) -> None:
        figures = evaluate.point(run, spectra)
        training.curve.append([training.step, training.seconds, *figures])
        journal.record(training.step, dict(zip(CURVE, figures, strict=True)))

    every = run.config.run.i_eval
    return [Hook(every, look, at_end=every > 0)]
