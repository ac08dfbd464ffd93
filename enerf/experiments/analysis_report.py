"""Weights and curvature of runs over steps, to a table, panels and a text.

A **record** is what was measured of one checkpoint: its ``step``, a report of each of its ``layers``, and the
``curvature`` of its loss, if that was asked for. A **history** is a run's records, oldest first, with the name and
scene of the run. None stands for what is not finite or was not measured.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from enerf.core import io
from enerf.reporting import tables

# Of a checkpoint: key, heading, whether it is drawn on a logarithmic axis.
FIGURES = (
    ("kappa_raw", "κ(W), raw weights", True),
    ("kappa", "κ(W), applied weights", True),
    ("row_norm_max", "largest and smallest row norm, applied", True),
    ("effective_rank", "effective rank of W, applied", False),
    ("kappa_inputs", "κ([1, H]) of layer inputs", True),
    ("hessian_max", "λ_max of the Hessian", True),
    ("negative_share", "most negative λ / λ_max of the Hessian", False),
    ("gauss_newton_kappa", "κ of the Gauss–Newton matrix", True),
    ("gauss_newton_effective_rank", "effective rank of Gauss–Newton", False),
)
OF_WEIGHTS = 4  # the first figures need no curvature

LEGEND = """\
Each figure is of the last checkpoint; behind it, ×: how much larger it is than at the first. Of layers the median is
told (of row norms the extremes).

- **κ(W)**: largest over smallest singular value of a weight matrix, of the raw weights that the optimiser sees and of
  those that the layer applies; **effective rank**: exponential of the entropy of its singular values.
- **row norms** of the paper's W, one for each input of a layer.
- **κ([1, H])**: of a layer's inputs with a column of ones, without directions below rounding. The Hessian of each unit
  of the layer is built from this matrix.
- **λ_max**, **λ_min**: largest and most negative eigenvalue of the Hessian of the loss with respect to the raw
  weights; "~" marks what did not converge. They measure the scale of the weights more than anything else: compare the
  ratios, and arms of the same scale.
- **κ(G)**: largest over smallest eigenvalue above rounding of the Gauss–Newton matrix, which has no more than there
  are numbers in the batch's outputs; **rank G**: how many are above rounding; **effective rank** of them.
"""


def summary(record: dict[str, Any]) -> dict[str, float | int | None]:
    """The figures of one checkpoint: over its layers the median of each, the extremes of row norms.

    >>> summary({"step": 7, "layers": {"a": {"kappa": 3.0, "row_norm_min": 1.0, "row_norm_max": 2.0}}})["kappa_raw"]
    3.0
    """
    layers = list(record["layers"].values())
    bent = record.get("curvature") or {}
    largest, smallest = bent.get("hessian_max"), bent.get("hessian_min")
    return {
        "kappa_raw": _median([layer.get("kappa_raw", layer["kappa"]) for layer in layers]),
        **{key: _median([layer[key] for layer in layers if key in layer]) for key in ("kappa", "effective_rank")},
        "kappa_inputs": _median([layer["kappa_inputs"] for layer in layers if "kappa_inputs" in layer]),
        "row_norm_min": min(_infinite(layer["row_norm_min"]) for layer in layers),
        "row_norm_max": max(_infinite(layer["row_norm_max"]) for layer in layers),
        "negative_share": max(0.0, -smallest / largest) if largest and largest > 0 and smallest is not None else None,
        **{key: bent.get(key) for key in ("hessian_max", "hessian_min", "gauss_newton_kappa", "gauss_newton_rank")},
        **{key: bent.get(key) for key in ("gauss_newton_effective_rank", "loss")},
    }


def table(histories: Sequence[dict[str, Any]]) -> list[list[str]]:
    """One row a run: its last checkpoint, and the change since the first."""
    bent = any("curvature" in record for history in histories for record in history["records"])
    rows = [["run", "step", "κ(W) raw", "κ(W) applied", "row norms", "eff. rank W"]]
    rows[0] += ["κ([1, H])", "λ_max", "λ_min", "κ(G)", "rank G", "eff. rank G", "loss"] * bent
    for history in histories:
        last = summary(history["records"][-1])
        first = summary(history["records"][0]) if len(history["records"]) > 1 else dict.fromkeys(last)

        def cell(key: str, first: dict[str, Any] = first, last: dict[str, Any] = last, mark: str = "") -> str:
            return mark + _changed(first[key], last[key])

        row = [history["name"], str(history["records"][-1]["step"]), cell("kappa_raw"), cell("kappa")]
        row += [f"{_short(last['row_norm_min'])}–{_short(last['row_norm_max'])}", cell("effective_rank")]
        if bent:
            found = history["records"][-1].get("curvature") or {}
            mark = "" if found.get("converged", True) else "~"
            row += [cell("kappa_inputs"), cell("hessian_max", mark=mark), cell("hessian_min", mark=mark)]
            row += [cell("gauss_newton_kappa"), _short(last["gauss_newton_rank"]), cell("gauss_newton_effective_rank")]
            row += [cell("loss")]
        rows.append(row)
    return rows


def draw(histories: Sequence[dict[str, Any]], path: Path, title: str) -> Path:
    """A panel a figure over steps, a line a run; runs that differ in their seed alone share a colour."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    bent = any("curvature" in record for history in histories for record in history["records"])
    figures = FIGURES if bent else FIGURES[:OF_WEIGHTS]
    columns = 3 if bent else 2
    figure = Figure(figsize=(4.6 * columns, 3.1 * math.ceil(len(figures) / columns) + 0.6), layout="constrained")
    colours = {arm: f"C{i}" for i, arm in enumerate(dict.fromkeys(_arm(history) for history in histories))}
    for i, (key, heading, logarithmic) in enumerate(figures):
        axes = figure.add_subplot(math.ceil(len(figures) / columns), columns, i + 1)
        for history in histories:
            steps = [record["step"] for record in history["records"]]
            values = [summary(record) for record in history["records"]]
            look: dict[str, Any] = {"color": colours[_arm(history)], "marker": ".", "linewidth": 1.2}
            axes.plot(steps, [_number(v[key]) for v in values], label=_arm(history), **look)
            if key == "row_norm_max":
                axes.plot(steps, [_number(v["row_norm_min"]) for v in values], linestyle="--", **look)
        axes.set_title(heading, fontsize="medium")
        axes.set_xlabel("step" if i >= len(figures) - columns else "")
        axes.set_yscale("log" if logarithmic and _positive(axes) else "linear")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    shown = {str(line.get_label()): line for line in figure.axes[0].lines}
    figure.legend(list(shown.values()), list(shown), loc="outside lower center", ncols=min(6, len(shown)))
    figure.suptitle(title)
    return _save(figure, path)


def draw_densities(histories: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """Spectral densities of the Hessians at the last checkpoints, against λ / λ_max; None if there are none."""
    from matplotlib.figure import Figure

    found = {h["name"]: h["records"][-1]["density"] for h in histories if h["records"][-1].get("density")}
    if not found:
        return None
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    top = 0.0
    for name, points in found.items():
        largest = max(map(abs, points["values"])) or 1.0
        at, curve = smoothed([v / largest for v in points["values"]], points["weights"])
        axes.plot(at, curve, label=name)
        top = max(top, *curve)
    axes.set(xlabel="λ / largest |λ|", ylabel="density", yscale="log", title="spectral density of the Hessian")
    axes.set_ylim(1e-8, 3 * top)
    axes.grid(alpha=0.3)
    axes.legend()
    return _save(figure, path)


def smoothed(values: list[float], weights: list[float], width: float = 0.01) -> tuple[list[float], list[float]]:
    """Abscissae over [−1, 1] and a little beyond, and the density there if every point is a Gaussian of that width."""
    at = [i / 500 for i in range(-525, 526)]
    scale = 1 / (width * math.sqrt(2 * math.pi))
    points = list(zip(values, weights, strict=True))
    return at, [sum(w * scale * math.exp(-0.5 * ((x - v) / width) ** 2) for v, w in points) for x in at]


def write(histories: Sequence[dict[str, Any]], folder: Path, words: str) -> str:
    """Write ``analysis.md`` and the pictures; returns the table as text. ``words`` say what was measured, and how."""
    rows = table(histories)
    scenes = ", ".join(dict.fromkeys(history["scene"] for history in histories))
    text = f"# Weights and curvature: {scenes}\n\n{words}\n\n{tables.as_markdown(rows)}\n\n{LEGEND}"
    io.write_atomic(folder / "analysis.md", text)
    draw(histories, folder / "analysis.png", scenes)
    draw_densities(histories, folder / "density.png")
    return tables.as_text(rows)


def _arm(history: dict[str, Any]) -> str:
    """The run's name without its seed."""
    return re.sub(r"_seed\d+$", "", history["name"])


def _median(values: list[float | int | None]) -> float | int | None:
    found = [_infinite(value) for value in values]
    return median(found) if found else None


def _infinite(value: float | int | None) -> float | int:
    """JSON has no infinity: a layer's figure that is None was infinite."""
    return math.inf if value is None else value


def _number(value: float | int | None) -> float | int:
    """What matplotlib leaves out if there is nothing to draw."""
    return math.nan if value is None or not math.isfinite(value) else value


def _positive(axes: Any) -> bool:
    return any(value > 0 for line in axes.lines for value in line.get_ydata())


def _changed(first: float | int | None, last: float | int | None) -> str:
    """The last value, and its ratio to the first.

    >>> _changed(2.0, 3.0), _changed(0.0, 3.0), _changed(None, None)
    ('3 ×1.5', '3', '–')
    """
    if first is None or last is None or not math.isfinite(first) or first == 0 or not math.isfinite(last):
        return _short(last)
    return f"{_short(last)} ×{last / first:.2g}"


def _short(value: float | int | None) -> str:
    """Three digits.

    >>> _short(1234567.0), _short(0.5), _short(384), _short(math.inf), _short(None)
    ('1.23e+06', '0.5', '384', '∞', '–')
    """
    if value is None:
        return "–"
    return "∞" if value == math.inf else f"{value:.3g}"


def _save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        figure.savefig(temporary, format="png", dpi=110)
    return path
