"""Report of an analysis: weights and curvature of runs over training steps, as table, plots and text.

A **record** contains the measurements of one checkpoint: ``step``, a report for each of its ``layers``, and optionally
the ``curvature`` of its loss. A **history** contains the ``records`` of a run, oldest first, and its ``name`` and
``scene``. None stands for a value that is not finite or was not measured.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from enerf.core import io
from enerf.reporting import tables

# Plotted values of a checkpoint: key, title, whether the axis is logarithmic.
FIGURES = (
    ("kappa_raw", "κ(W), raw weights", True),
    ("effective_rank_raw", "effective rank of W, raw", False),
    ("stable_rank_raw", "stable rank of W, raw", False),
    ("kappa", "κ(W), applied weights", True),
    ("effective_rank", "effective rank of W, applied", False),
    ("stable_rank", "stable rank of W, applied", False),
    ("row_norm_max", "largest and smallest row norm, applied", True),
    ("kappa_inputs", "κ([1, H]) of layer inputs", True),
    ("hessian_max", "λ_max of the Hessian", True),
    ("negative_share", "most negative λ / λ_max of the Hessian", False),
    ("gauss_newton_kappa", "κ of the Gauss–Newton matrix", True),
    ("gauss_newton_effective_rank", "effective rank of Gauss–Newton", False),
)
N_WEIGHT_FIGURES = 7  # the first ones do not need the curvature
N_COLUMNS = 3
RANKS = ("effective_rank", "stable_rank")

LEGEND = """\
Values are those of the last checkpoint, followed by × and their ratio to the first one. Values of layers are medians
over layers (row norms: minimum and maximum).

- **κ(W)**: largest over smallest singular value of a weight matrix, of the raw weights that the optimizer updates and
  of the effective weights of the layer, which are those that it **applies**; **effective rank**: exponential of the
  entropy of its singular values; **stable rank**: ‖W‖_F² / ‖W‖₂². "–" stands for ranks that were not measured, in
  records of earlier versions.
- **row norms** of the paper's W, one for each input of a layer.
- **κ([1, H])**: condition number of the matrix of a layer's inputs with a column of ones, without directions below
  rounding. The Hessian of each unit of the layer is built from this matrix.
- **λ_max**, **λ_min**: largest and most negative eigenvalue of the Hessian of the loss with respect to the raw
  weights; "~" marks values that did not converge. They depend mostly on the scale of the weights: compare ratios, and
  variants of the same scale.
- **κ(G)**: largest over smallest eigenvalue above rounding of the Gauss–Newton matrix, which has at most as many
  nonzero eigenvalues as the batch has output values; **rank G**: number above rounding; **effective rank** of them.
"""


def summary(record: dict[str, Any]) -> dict[str, float | int | None]:
    """Summarize one checkpoint: medians over its layers, minimum and maximum of row norms, and curvature.

    >>> summary({"step": 7, "layers": {"a": {"kappa": 3.0, "row_norm_min": 1.0, "row_norm_max": 2.0}}})["kappa_raw"]
    3.0
    """
    layers = list(record["layers"].values())
    curvature = record.get("curvature") or {}
    largest, smallest = curvature.get("hessian_max"), curvature.get("hessian_min")
    return {
        **{key: _median_of(layers, key) for key in ("kappa", *RANKS)},
        **{f"{key}_raw": _median_of(layers, key, raw=True) for key in ("kappa", *RANKS)},
        "kappa_inputs": _median([layer["kappa_inputs"] for layer in layers if "kappa_inputs" in layer]),
        "row_norm_min": min(_inf_if_none(layer["row_norm_min"]) for layer in layers),
        "row_norm_max": max(_inf_if_none(layer["row_norm_max"]) for layer in layers),
        "negative_share": max(0.0, -smallest / largest) if largest and largest > 0 and smallest is not None else None,
        **{
            key: curvature.get(key) for key in ("hessian_max", "hessian_min", "gauss_newton_kappa", "gauss_newton_rank")
        },
        **{key: curvature.get(key) for key in ("gauss_newton_effective_rank", "loss")},
    }


def table(histories: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return rows of text, the header first: one per run, its last checkpoint and the ratio to the first."""
    curvature = any("curvature" in record for history in histories for record in history["records"])
    rows = [["run", "step", "κ(W) raw", "κ(W) applied", "row norms", "eff. rank W raw", "eff. rank W applied"]]
    rows[0] += ["stable rank W raw", "stable rank W applied"]
    rows[0] += ["κ([1, H])", "λ_max", "λ_min", "κ(G)", "rank G", "eff. rank G", "loss"] * curvature
    for history in histories:
        last = summary(history["records"][-1])
        first = summary(history["records"][0]) if len(history["records"]) > 1 else dict.fromkeys(last)

        def cell(key: str, first: dict[str, Any] = first, last: dict[str, Any] = last, mark: str = "") -> str:
            return mark + _with_ratio(first[key], last[key])

        row = [history["name"], str(history["records"][-1]["step"]), cell("kappa_raw"), cell("kappa")]
        row += [f"{_short(last['row_norm_min'])}–{_short(last['row_norm_max'])}"]
        row += [cell(f"{key}{of}") for key in RANKS for of in ("_raw", "")]
        if curvature:
            last_curvature = history["records"][-1].get("curvature") or {}
            mark = "" if last_curvature.get("converged", True) else "~"
            row += [cell("kappa_inputs"), cell("hessian_max", mark=mark), cell("hessian_min", mark=mark)]
            row += [cell("gauss_newton_kappa"), _short(last["gauss_newton_rank"]), cell("gauss_newton_effective_rank")]
            row += [cell("loss")]
        rows.append(row)
    return rows


def draw(histories: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """Plot each value over steps, one line per run; runs that differ only in their seed share a color."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curvature = any("curvature" in record for history in histories for record in history["records"])
    figures = FIGURES if curvature else FIGURES[:N_WEIGHT_FIGURES]
    n_rows = math.ceil(len(figures) / N_COLUMNS)
    figure = Figure(figsize=(4.6 * N_COLUMNS, 3.1 * n_rows + 0.6), layout="constrained")
    colors = {
        name: f"C{i}" for i, name in enumerate(dict.fromkeys(_name_without_seed(history) for history in histories))
    }
    for i, (key, heading, logarithmic) in enumerate(figures):
        axes = figure.add_subplot(n_rows, N_COLUMNS, i + 1)
        for history in histories:
            steps = [record["step"] for record in history["records"]]
            values = [summary(record) for record in history["records"]]
            style: dict[str, Any] = {"color": colors[_name_without_seed(history)], "marker": ".", "linewidth": 1.2}
            axes.plot(steps, [_nan_if_missing(v[key]) for v in values], label=_name_without_seed(history), **style)
            if key == "row_norm_max":
                axes.plot(steps, [_nan_if_missing(v["row_norm_min"]) for v in values], linestyle="--", **style)
        axes.set_title(heading, fontsize="medium")
        axes.set_xlabel("step" if i >= len(figures) - N_COLUMNS else "")
        axes.set_yscale("log" if logarithmic and _positive(axes) else "linear")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    shown = {str(line.get_label()): line for line in figure.axes[0].lines}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=min(6, len(shown)))
    figure.suptitle(title)
    return _save(figure, path)


def draw_densities(histories: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """Plot the spectral densities of the Hessians at the last checkpoints over λ / λ_max; None if there are none."""
    from matplotlib.figure import Figure

    found = {h["name"]: h["records"][-1]["density"] for h in histories if h["records"][-1].get("density")}
    if not found:
        return None
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    top = 0.0
    for name, points in found.items():
        largest = max(map(abs, points["values"])) or 1.0
        at, curve = smooth_density([v / largest for v in points["values"]], points["weights"])
        axes.plot(at, curve, label=name)
        top = max(top, *curve)
    axes.set(xlabel="λ / largest |λ|", ylabel="density", yscale="log", title="spectral density of the Hessian")
    axes.set_ylim(1e-8, 3 * top)
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, path)


def smooth_density(values: list[float], weights: list[float], width: float = 0.01) -> tuple[list[float], list[float]]:
    """Return abscissae over about [−1, 1] and the density there: a weighted sum of Gaussians at the points."""
    at = [i / 500 for i in range(-525, 526)]
    scale = 1 / (width * math.sqrt(2 * math.pi))
    points = list(zip(values, weights, strict=True))
    return at, [sum(w * scale * math.exp(-0.5 * ((x - v) / width) ** 2) for v, w in points) for x in at]


def write(histories: Sequence[dict[str, Any]], folder: Path, description: str) -> str:
    """Write ``analysis.md`` and the plots; return the table as text. ``description`` says what was measured."""
    rows = table(histories)
    scenes = ", ".join(dict.fromkeys(history["scene"] for history in histories))
    text = f"# Weights and curvature: {scenes}\n\n{description}\n\n{tables.as_markdown(rows)}\n\n{LEGEND}"
    io.write_atomic(folder / "analysis.md", text)
    draw(histories, folder / "analysis.png", scenes)
    draw_densities(histories, folder / "density.png")
    return tables.as_text(rows)


def _name_without_seed(history: dict[str, Any]) -> str:
    """Return the run's name without its seed."""
    return re.sub(r"_seed\d+$", "", history["name"])


def _median_of(layers: Sequence[dict[str, Any]], key: str, *, raw: bool = False) -> float | int | None:
    """Return the median of a statistic over layers; None if a layer lacks it, as in records of earlier versions.

    Plain layers have no raw statistics: their raw weights are those that they apply.
    """
    keys = [f"{key}_raw" if raw and "kappa_raw" in layer else key for layer in layers]
    found = [layer[own] for own, layer in zip(keys, layers, strict=True) if own in layer]
    return _median(found) if len(found) == len(layers) else None


def _median(values: list[float | int | None]) -> float | int | None:
    found = [_inf_if_none(value) for value in values]
    return median(found) if found else None


def _inf_if_none(value: float | int | None) -> float | int:
    """Return infinity for None: JSON has no infinity, values of layers are saved as None instead."""
    return math.inf if value is None else value


def _nan_if_missing(value: float | int | None) -> float | int:
    """Return NaN, which matplotlib does not draw, for values that are missing or not finite."""
    return math.nan if value is None or not math.isfinite(value) else value


def _positive(axes: Any) -> bool:
    return any(value > 0 for line in axes.lines for value in line.get_ydata())


def _with_ratio(first: float | int | None, last: float | int | None) -> str:
    """Format the last value and its ratio to the first.

    >>> _with_ratio(2.0, 3.0), _with_ratio(0.0, 3.0), _with_ratio(None, None)
    ('3 ×1.5', '3', '–')
    """
    if first is None or last is None or not math.isfinite(first) or first == 0 or not math.isfinite(last):
        return _short(last)
    return f"{_short(last)} ×{last / first:.2g}"


def _short(value: float | int | None) -> str:
    """Format a value with three significant digits; ∞ if it is infinite, – if it is missing.

    >>> _short(1234567.0), _short(0.5), _short(384), _short(math.inf), _short(None)
    ('1.23e+06', '0.5', '384', '∞', '–')
    """
    if value is None:
        return "–"
    return "∞" if value == math.inf else f"{value:.3g}"


def _save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, atomically."""
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        figure.savefig(temporary, format="png", dpi=110)
    return path
