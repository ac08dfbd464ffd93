"""Evaluation of classifier runs: writes ``metrics.json`` with the metrics and the protocol of their measurement."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from enerf.conditioning.diagnostics import spectrum
from enerf.core import io
from enerf.engine import distributed, joint_start, results, resume
from enerf.engine.checkpoint import State
from enerf.engine.trainer import LayerReport
from enerf.tasks.classifier import build, optimizers, setup, step
from enerf.tasks.classifier import metrics as classifier_metrics
from enerf.tasks.classifier.setup import ClassifierRun


def evaluate_folder(folder: Path, device: str = "auto", source: str = "") -> dict[str, Any]:
    """Open a finished run, evaluate it again and return its metrics.

    ``source`` is the new path of its images, if they were moved.

    Raises
    ------
    InputError
        If the folder is not a classifier run, or its images are missing.
    """
    run = setup.open_run(folder, device, source)
    with joint_start.published(run.config.folder, run.state.step) as out:
        return evaluate(run, Spectra(run), out)


def evaluate(run: ClassifierRun, spectra: "Spectra", out: Path | None = None) -> dict[str, Any]:
    """Evaluate the network on all test images and on ``fit_indices`` of the training images; write ``metrics.json``.

    It is written to ``out``, by default the run's folder.
    """
    began = time.perf_counter()
    model = setup.frozen(run.model)
    test = classifier_metrics.measure(logits_function(run, model), run.data.test)
    fit = classifier_metrics.measure(logits_function(run, model), run.data.train, fit_indices(run))
    of_first = distributed.current().of_first
    return of_first(partial(_written, run, spectra, out or run.config.folder, test, fit, began))


def _written(
    run: ClassifierRun, spectra: "Spectra", out: Path, test: dict[str, Any], fit: dict[str, Any], began: float
) -> dict[str, Any]:
    """Write the metrics of a run, and return them."""
    seconds, steps, options = run.state.seconds, max(run.state.step, 1), run.config.run
    # with another run's weights, steps include that run's, seconds do not
    is_continued = bool(options.ft_path) and not options.no_reload
    metrics = {
        **_protocol(run),
        **run.record.metrics(run.state.step, run.config.folder),
        **{"test": test, "fit": fit, "kappa": kappa_summary(spectra(run.state)), "sparsity": _sparsity(run)},
        **{"curve": run.state.curve, "seconds": {"train": seconds, "eval": time.perf_counter() - began}},
        "step_ms": None if is_continued else 1000 * seconds / steps,
    }
    io.write_json(out / results.METRICS, metrics)
    return metrics


class Spectra:
    """Condition numbers and row norms of ``--layers``, cached for the current step."""

    def __init__(self, run: ClassifierRun) -> None:
        self.run, self.step = run, -1
        self.report: LayerReport = {}

    def __call__(self, training: State) -> LayerReport:
        """Return the report of each layer."""
        if training.step != self.step:
            self.report, self.step = spectrum.layer_report(training.model, self.run.layers), training.step
        return self.report


def curve_point(run: ClassifierRun, spectra: Spectra) -> list[float]:
    """Return a point of the curve: test accuracy and loss, training accuracy and loss, median κ of ``--layers``."""
    model, n = setup.frozen(run.model), run.config.run.eval_images
    test = classifier_metrics.measure(
        logits_function(run, model), run.data.test, classifier_metrics.fixed_subset(run.data.test, n)
    )
    fit = classifier_metrics.measure(logits_function(run, model), run.data.train, fit_indices(run))
    kappa = distributed.current().of_first(lambda: kappa_summary(spectra(run.state))["median"])
    return [test["accuracy"], test["loss"], fit["accuracy"], fit["loss"], kappa]


def finished_metrics(run: ClassifierRun) -> dict[str, Any] | None:
    """Return the saved metrics if they were measured at the current step with the same protocol, else None."""
    return resume.matching_metrics(run.config.folder, _protocol(run))


def logits_function(run: ClassifierRun, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a function from images as bytes to logits, with the run's standardization and precision."""
    standardize = partial(step.standardize, mean=run.data.mean, std=run.data.std, device=run.device)
    return lambda images: step.logits_of(model, standardize(images), run.precision)


def fit_indices(run: ClassifierRun) -> Tensor:
    """Return the indices of the training images that are evaluated: ``--eval_images``, or as many as test images."""
    return classifier_metrics.fixed_subset(run.data.train, run.config.run.eval_images or len(run.data.test))


def kappa_summary(report: LayerReport) -> dict[str, float]:
    """Return median and largest κ of the effective weights, and the number of layers, without rank-deficient ones."""
    values = [layer["kappa"] for layer in report.values() if math.isfinite(layer["kappa"])]
    if not values:
        return {"median": math.inf, "largest": math.inf, "layers": 0}
    return {"median": statistics.median(values), "largest": max(values), "layers": len(values)}


def _sparsity(run: ClassifierRun) -> float:
    """Return the fraction of raw weights that are exactly 0."""
    chosen = optimizers.regularized_weights(run.model)
    zeros = sum(int((p == 0).sum()) for p in chosen)
    return zeros / max(1, sum(p.numel() for p in chosen))


def _protocol(run: ClassifierRun) -> dict[str, Any]:
    """Return the settings stored in ``metrics.json``; saved metrics are reused only if all of them are equal."""
    config, m, t, data = run.config, run.config.model, run.config.train, run.data
    return {
        "dataset": data.name,
        "note": data.note,
        "model": build.model_title(m.model, width=m.width, depth=m.depth, patch=m.patch, size=data.size),
        "parameters": sum(p.numel() for p in setup.frozen(run.model).parameters()),
        "method": setup.method_name(config),
        "steps": run.state.step,
        "epochs": run.state.step / run.steps_per_epoch,
        "steps_an_epoch": run.steps_per_epoch,
        "seed": t.seed,
        "device": str(run.device),
        "precision": run.record.metrics(run.state.step, config.folder)["precision"],
        "protocol": {
            **{"optimiser": t.optimiser, "lrate": t.lrate, "schedule": t.lrate_schedule, "batch": t.N_batch},
            **{"momentum": t.momentum, "weight_decay": t.weight_decay, "l1": t.l1, "l2": t.l2},
            **{"augment": config.data.augment, "mixup": t.mixup, "label_smoothing": t.label_smoothing},
            **{"train_images": len(data.train), "test_images": len(data.test), "size": data.size},
            **{"channels": data.channels, "classes": len(data.classes), "layers": config.conditioning.layers},
            "images": config.data.images,
            "fit": f"{len(fit_indices(run))} training images, the same for all runs, without augmentation",
        },
    }
