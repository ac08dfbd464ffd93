"""Tables of the metrics of classifier runs, and published results; ``curves`` plots them.

A run is the content of its ``metrics.json``: ``dataset``, ``note``, ``model``, ``method``, ``epochs``, ``seed``,
``step_ms``; ``test`` and ``fit`` with ``accuracy`` and ``loss``; ``kappa`` with ``median`` and ``largest``; and
``curve``: rows ``[step, seconds, test accuracy, test loss, training accuracy, training loss, median κ]``.
"""

from collections.abc import Sequence
from typing import Any

from enerf.reporting import grouping, plots

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
LEARNED_FACTOR = 2.0  # times chance accuracy, below which a run counts as not learned

PROTOCOL = "Saratchandran, Wang, Lucey, ECCV 2024 (CNNs: SGD 1e-3, batch 128, 200 epochs; ViT-B: AdamW)"
# Published top-1 accuracy in percent: (architecture, data set) -> normalization -> accuracy.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    ("Inception", "CIFAR-10"): {"bn": 83.1, "bn+w": 83.1, "bn+ws": 82.9, "bn+e": 83.3},
    ("Inception", "CIFAR-100"): {"bn": 55.9, "bn+w": 56.3, "bn+ws": 56.1, "bn+e": 58.7},
    ("DenseNet", "CIFAR-10"): {"bn": 70.5, "bn+w": 76.2, "bn+ws": 75.9, "bn+e": 79.96},
    ("DenseNet", "CIFAR-100"): {"bn": 64.6, "bn+w": 68.8, "bn+ws": 71.7, "bn+e": 72.4},
    ("ViT-B", "ImageNet"): {"ln": 79.9, "ln+w": 80.0, "ln+e": 80.2},
}
CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}


def table(runs: Sequence[Run]) -> list[list[str]]:
    """Return rows of text, the header first: one per data set, network and method, mean ± deviation over seeds.

    Accuracies are top-1 in percent, losses cross entropies in nats; κ is that of the effective weights of ``--layers``.
    "learned" is the number of seeds for which ``has_learned``; "zeros" is the percentage of weights that are exactly 0,
    if there are any.
    """
    with_zeros = any(run.get("sparsity") for run in runs)
    heads = ["images", "network", "method", *(heading for heading, *_ in COLUMNS), "learned", "epochs"]
    rows = [heads + (["zeros [%]"] if with_zeros else [])]
    groups: dict[tuple[str, str, str], list[Run]] = {}
    special = grouping.distinctions(runs, lambda run: (_images(run), run["model"], method_label(run)))
    for run, options in zip(runs, special, strict=True):
        method = method_label(run) + (f", {options}" if options else "")
        groups.setdefault((_images(run), run["model"], method), []).append(run)
    for key, some in groups.items():
        cells = [plots.mean_and_std([_value(run, path) for run in some], digits) for _, path, digits in COLUMNS]
        epochs = sorted({f"{run['epochs']:g}" for run in some}, key=float)
        length = plots.DASH.join(epochs if len(epochs) < 2 else (epochs[0], epochs[-1]))
        zeros = [plots.mean_and_std([_percent(run.get("sparsity")) for run in some], 1)] if with_zeros else []
        rows.append([*key, *cells, f"{sum(map(has_learned, some))}/{len(some)}", length, *zeros])
    return rows


def published(runs: Sequence[Run]) -> list[list[str]]:
    """Return rows of the paper's results for the architectures and data sets of these runs, the header first.

    Data sets are identified by the name of their folder or archive and their number of classes. Lossily compressed
    copies (with a note in the first column of ``table``) match too, although their results are not comparable.
    """
    found = [(run["model"], _published_images(run)) for run in runs]
    rows = [["published", "network", "method", "test [%]"]]
    for (network, images), results in PUBLISHED.items():
        if any(model.startswith(network) and named == images for model, named in found):
            rows += [[images, network, method, f"{value:g}"] for method, value in results.items()]
    return rows


def has_learned(run: Run) -> bool:
    """Return whether the test accuracy is at least twice chance, or half way from chance to 100 % if that is less.

    >>> of = lambda accuracy: {"test": {"accuracy": accuracy}, "protocol": {"classes": 10}}
    >>> has_learned(of(30.0)), has_learned(of(15.0))
    (True, False)
    """
    chance = 100 / run["protocol"]["classes"]
    return bool(run["test"]["accuracy"] >= min(LEARNED_FACTOR * chance, (100 + chance) / 2))


def method_label(run: Run) -> str:
    """Return the name of a run's variant in a comparison, otherwise of its method."""
    return str(run.get("arm") or run["method"])


def _images(run: Run) -> str:
    return f"{run['dataset']} ({run['note']})" if run.get("note") else str(run["dataset"])


def _published_images(run: Run) -> str:
    """Return the key of ``CLASSES`` that matches a run's data set by name and number of classes; "" if none does.

    >>> of = lambda name, classes: {"dataset": name, "protocol": {"classes": classes}}
    >>> _published_images(of("cifar-10-batches-bin", 10)), _published_images(of("cifar-100-python", 100))
    ('CIFAR-10', 'CIFAR-100')
    >>> _published_images(of("imagenette2", 10))
    ''
    """
    name = _alphanumeric(run["dataset"])
    longest = max((images for images in CLASSES if name.startswith(_alphanumeric(images))), key=len, default="")
    return longest if CLASSES.get(longest) == run["protocol"]["classes"] else ""


def _alphanumeric(name: str) -> str:
    """Return the letters and digits of a name, in lower case.

    >>> _alphanumeric("CIFAR-10")
    'cifar10'
    """
    return "".join(filter(str.isalnum, name.lower()))


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _value(run: Run, path: tuple[str, ...]) -> float | None:
    """Return a value of a run, None if it is missing."""
    found: Any = run
    for name in path:
        found = (found or {}).get(name)
    return found
