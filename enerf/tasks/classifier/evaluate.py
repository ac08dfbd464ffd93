"""What a classifier run is measured to be: its ``metrics.json``, with the protocol of every figure beside it."""

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
from enerf.engine import resume
from enerf.engine.checkpoint import State
from enerf.engine.trainer import LayerReport
from enerf.tasks.classifier import build, optimizers, setup, step
from enerf.tasks.classifier import metrics as classifier_metrics
from enerf.tasks.classifier.setup import ClassifierRun


def evaluate_folder(folder: Path, device: str = "auto", source: str = "") -> dict[str, Any]:
    """Open a finished run, measure it again and return its metrics; ``source`` is the new place of its images, if any.

    Raises
    ------
    InputError
        If the folder is no run of a classifier, or its images are missing.
    """
    run = setup.open_run(folder, device, source)
    return evaluate(run, Spectra(run))


def evaluate(run: ClassifierRun, spectra: "Spectra") -> dict[str, Any]:
    """Measure the network on all test images, and on as many training images as a point of the curve has.

    Writes ``metrics.json``.
    """
    began = time.perf_counter()
    model = setup.frozen(run.model)
    test = classifier_metrics.measured(answers_of(run, model), run.data.test)
    fit = classifier_metrics.measured(answers_of(run, model), run.data.train, fit_numbers(run))
    seconds, steps, asked = run.state.seconds, max(run.state.step, 1), run.config.run
    is_continued = bool(asked.ft_path) and not asked.no_reload  # its steps are partly another run's, its seconds not
    metrics = {
        **_described(run),
        **run.record.metrics(run.state.step),
        **{"test": test, "fit": fit, "kappa": kappa_of(spectra(run.state)), "sparsity": _sparsity(run)},
        **{"curve": run.state.curve, "seconds": {"train": seconds, "eval": time.perf_counter() - began}},
        "step_ms": None if is_continued else 1000 * seconds / steps,
    }
    io.write_json(run.config.folder / "metrics.json", metrics)
    return metrics


class Spectra:
    """κ and row norms of ``--layers`` at a run's present step, computed once: for the curve, records and metrics."""

    def __init__(self, run: ClassifierRun) -> None:
        self.run, self.step = run, -1
        self.told: LayerReport = {}

    def __call__(self, training: State) -> LayerReport:
        """The report of each layer."""
        if training.step != self.step:
            self.told, self.step = spectrum.layer_report(training.model, self.run.layers), training.step
        return self.told


def point(run: ClassifierRun, spectra: Spectra) -> list[float]:
    """A point of the curve: test accuracy and loss, accuracy and loss of training images, median κ of ``--layers``."""
    model, n = setup.frozen(run.model), run.config.run.eval_images
    test = classifier_metrics.measured(
        answers_of(run, model), run.data.test, classifier_metrics.some_of(run.data.test, n)
    )
    fit = classifier_metrics.measured(answers_of(run, model), run.data.train, fit_numbers(run))
    return [test["accuracy"], test["loss"], fit["accuracy"], fit["loss"], kappa_of(spectra(run.state))["median"]]


def finished_metrics(run: ClassifierRun) -> dict[str, Any] | None:
    """The run's metrics if they were measured at its present step, of the same images."""
    return resume.matching_metrics(run.config.folder, _described(run))


def answers_of(run: ClassifierRun, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Images as bytes -> the logits of a network, as the run's data and precision have it."""
    standardised = partial(step.standardised, mean=run.data.mean, std=run.data.std, device=run.device)
    return lambda images: step.logits_of(model, standardised(images), run.precision)


def fit_numbers(run: ClassifierRun) -> Tensor:
    """The training images that are measured: as many as a point of the curve has."""
    return classifier_metrics.some_of(run.data.train, run.config.run.eval_images or len(run.data.test))


def kappa_of(told: LayerReport) -> dict[str, float]:
    """Median and largest κ of the weights that layers really apply, and of how many: those of full rank."""
    values = [layer["kappa"] for layer in told.values() if math.isfinite(layer["kappa"])]
    if not values:
        return {"median": math.inf, "largest": math.inf, "layers": 0}
    return {"median": statistics.median(values), "largest": max(values), "layers": len(values)}


def _sparsity(run: ClassifierRun) -> float:
    """The share of weights that are exactly 0, as the optimiser sees them."""
    chosen = optimizers.weights(run.model)
    zeros = sum(int((p == 0).sum()) for p in chosen)
    return zeros / max(1, sum(p.numel() for p in chosen))


def _described(run: ClassifierRun) -> dict[str, Any]:
    """What a figure needs beside it: images, network, method, steps."""
    config, m, t, data = run.config, run.config.model, run.config.train, run.data
    return {
        "dataset": data.name,
        "note": data.note,
        "model": build.words(m.model, width=m.width, depth=m.depth, patch=m.patch, size=data.size),
        "parameters": sum(p.numel() for p in setup.frozen(run.model).parameters()),
        "method": setup.method_name(config),
        "steps": run.state.step,
        "epochs": run.state.step / run.steps_an_epoch,
        "steps_an_epoch": run.steps_an_epoch,
        "seed": t.seed,
        "device": str(run.device),
        "precision": run.record.trained(run.state.step).precision,
        "protocol": {
            **{"optimiser": t.optimiser, "lrate": t.lrate, "schedule": t.lrate_schedule, "batch": t.N_batch},
            **{"momentum": t.momentum, "weight_decay": t.weight_decay, "l1": t.l1, "l2": t.l2},
            **{"augment": config.data.augment, "mixup": t.mixup, "label_smoothing": t.label_smoothing},
            **{"train_images": len(data.train), "test_images": len(data.test), "size": data.size},
            **{"channels": data.channels, "classes": len(data.classes), "layers": config.conditioning.layers},
            "images": config.data.images,
            "fit": f"{len(fit_numbers(run))} training images, the same for all runs, without augmentation",
        },
    }
