"""Metrics of classifier runs to a table, beside published figures; ``classifier_curves`` draws them.

A run is what ``metrics.json`` holds: ``dataset``, ``note``, ``model``, ``method``, ``epochs``, ``seed``, ``step_ms``;
``test`` and ``fit`` with ``accuracy`` and ``loss``; ``kappa`` with ``median`` and ``largest``; and ``curve``: rows
``[step, seconds, test accuracy, test loss, training accuracy, training loss, median κ]``.
"""

from collections.abc import Sequence
from typing import Any

from enerf.reporting import plots

Run = dict[str, Any]

# heading, path of names, decimals
COLUMNS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("test [%]", ("test", "accuracy"), 2),
    ("test loss", ("test", "loss"), 3),
    ("train [%]", ("fit", "accuracy"), 2),
    ("train loss", ("fit", "loss"), 3),
    ("median κ", ("kappa", "median"), 1),
    ("largest κ", ("kappa", "largest"), 0),
    ("step [ms]", ("step_ms",), 1),
)
CHANCES = 2.0  # times the accuracy of guessing: less is a run that has not learned

PROTOCOL = "Saratchandran, Wang, Lucey, ECCV 2024 (CNNs: SGD 1e-3, batch 128, 200 epochs; ViT-B: AdamW)"
# Top-1 in percent, as published: architecture, images -> normalisation -> figure.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    ("Inception", "CIFAR-10"): {"bn": 83.1, "bn+w": 83.1, "bn+ws": 82.9, "bn+e": 83.3},
    ("Inception", "CIFAR-100"): {"bn": 55.9, "bn+w": 56.3, "bn+ws": 56.1, "bn+e": 58.7},
    ("DenseNet", "CIFAR-10"): {"bn": 70.5, "bn+w": 76.2, "bn+ws": 75.9, "bn+e": 79.96},
    ("DenseNet", "CIFAR-100"): {"bn": 64.6, "bn+w": 68.8, "bn+ws": 71.7, "bn+e": 72.4},
    ("ViT-B", "ImageNet"): {"ln": 79.9, "ln+w": 80.0, "ln+e": 80.2},
}
CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}


def table(runs: Sequence[Run]) -> list[list[str]]:
    """Rows as text: one for each data set, network and method, ± the deviation over seeds.

    Accuracies are top-1 in percent, losses cross entropies in nats; κ is of the weights that the layers of ``--layers``
    apply. "learned" counts the seeds that end at twice the accuracy of guessing or more; "zeros" is the share of
    weights that are exactly 0, where any are.
    """
    with_zeros = any(run.get("sparsity") for run in runs)
    heads = ["images", "network", "method", *(heading for heading, *_ in COLUMNS), "learned", "epochs"]
    rows = [heads + (["zeros [%]"] if with_zeros else [])]
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((_images(run), run["model"], named(run)), []).append(run)
    for key, some in groups.items():
        cells = [plots.mean_and_std([_value(run, path) for run in some], digits) for _, path, digits in COLUMNS]
        epochs = sorted({f"{run['epochs']:g}" for run in some}, key=float)
        length = plots.DASH.join(epochs if len(epochs) < 2 else (epochs[0], epochs[-1]))
        zeros = [plots.mean_and_std([_percent(run.get("sparsity")) for run in some], 1)] if with_zeros else []
        rows.append([*key, *cells, f"{sum(map(learned, some))}/{len(some)}", length, *zeros])
    return rows


def published(runs: Sequence[Run]) -> list[list[str]]:
    """Rows of the paper's figures for the architectures and images among these runs; the heads alone if there are none.

    Images are known by the name of their folder or archive and by how many classes they have. Those that were stored
    with losses (a note says so) count as the ones they were made of; their figures cannot be compared, which the
    table's first column says.
    """
    found = [(run["model"], _published_images(run)) for run in runs]
    rows = [["published", "network", "method", "test [%]"]]
    for (network, images), figures in PUBLISHED.items():
        if any(model.startswith(network) and named == images for model, named in found):
            rows += [[images, network, method, f"{value:g}"] for method, value in figures.items()]
    return rows


def learned(run: Run) -> bool:
    """Whether a run ends at twice the accuracy of guessing, or at half way to all if that is less.

    >>> of = lambda accuracy: {"test": {"accuracy": accuracy}, "protocol": {"classes": 10}}
    >>> learned(of(30.0)), learned(of(15.0))
    (True, False)
    """
    guessing = 100 / run["protocol"]["classes"]
    return bool(run["test"]["accuracy"] >= min(CHANCES * guessing, (100 + guessing) / 2))


def named(run: Run) -> str:
    """What a run's method is called: the comparison's name for it, or its own."""
    return str(run.get("arm") or run["method"])


def _images(run: Run) -> str:
    return f"{run['dataset']} ({run['note']})" if run.get("note") else str(run["dataset"])


def _published_images(run: Run) -> str:
    """The images of published figures that a run's data set is named for and has all classes of; "" if there are none.

    >>> of = lambda name, classes: {"dataset": name, "protocol": {"classes": classes}}
    >>> _published_images(of("cifar-10-batches-bin", 10)), _published_images(of("cifar-100-python", 100))
    ('CIFAR-10', 'CIFAR-100')
    >>> _published_images(of("imagenette2", 10))
    ''
    """
    name = _plain(run["dataset"])
    longest = max((images for images in CLASSES if name.startswith(_plain(images))), key=len, default="")
    return longest if CLASSES.get(longest) == run["protocol"]["classes"] else ""


def _plain(name: str) -> str:
    """Its letters and digits, in lower case.

    >>> _plain("CIFAR-10")
    'cifar10'
    """
    return "".join(filter(str.isalnum, name.lower()))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _value(run: Run, path: tuple[str, ...]) -> float | None:
    """A number of a run, None if it is missing."""
    found: Any = run
    for name in path:
        found = (found or {}).get(name)
    return found
