"""Results of a comparison of NeRF methods: table, curves and crops."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from enerf.core import images, io
from enerf.datasets.scenes import pixels
from enerf.engine import checkpoint
from enerf.reporting import learning_rates, plots, tables
from enerf.reporting.plots import mean_and_std
from enerf.tasks.nerf import setup, views
from enerf.tasks.nerf.config import NerfConfig

RATES_RANGE = 2.0  # dB shown below the best, so that failed runs do not flatten the others
SUCCESS_MARGIN = 1.0  # dB above the constant image; runs below have failed


def succeeded(metrics: dict[str, Any]) -> bool:
    """Return whether a run has not collapsed and its test PSNR is 1 dB above that of a constant image.

    >>> succeeded({"collapsed": False, "mean": {"psnr": 20.0}, "constant_psnr": 12.0})
    True
    """
    return not metrics["collapsed"] and metrics["mean"]["psnr"] > metrics["constant_psnr"] + SUCCESS_MARGIN


def table(variants: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    """Return one row per variant: mean ± standard deviation over seeds, success rate, steps and training time.

    "PSNR" is of test views, "fit" of training views.
    """
    rows = [["method", "PSNR [dB]", "fit [dB]", "SSIM", "LPIPS", "success", "seeds", "steps", "train [s]"]]
    for method, runs in variants.items():
        scores = [[m["mean"][key] for m in runs] for key in ("psnr", "ssim", "lpips")]
        steps = sorted({m["steps"] for m in runs})
        rows.append(
            [
                method,
                mean_and_std(scores[0], 2),
                mean_and_std([m.get("fit_psnr") for m in runs], 2),
                mean_and_std(scores[1], 3),
                mean_and_std(scores[2], 3),
                f"{sum(map(succeeded, runs))}/{len(runs)}",
                ",".join(str(m["seed"]) for m in runs),
                "–".join(map(str, steps if len(steps) < 2 else (steps[0], steps[-1]))),
                f"{np.mean([m['seconds']['train'] for m in runs]):.0f}",
            ]
        )
    return rows


def draw_curves(variants: dict[str, list[dict[str, Any]]], path: Path, title: str) -> Path:
    """Plot test PSNR against steps, one line per variant: mean over seeds, range between their extremes shaded."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    if len(variants) > 10:  # more than the default color cycle
        axes.set_prop_cycle(color=[colormaps["tab20"](i) for i in range(20)])
    for method, runs in variants.items():
        found = [np.array(m["curve"], dtype=float) for m in runs if m["curve"]]
        if not found:
            continue
        n = min(map(len, found))
        steps, values = found[0][:n, 0], np.stack([curve[:n, 1] for curve in found])
        (line,) = axes.plot(steps, values.mean(0), label=method, marker=".")
        if len(found) > 1:
            axes.fill_between(steps, values.min(0), values.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set(xlabel="step", ylabel="test PSNR [dB]", title=title)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend()
    return plots.save(figure, path)


def draw_rates(variants: dict[str, list[dict[str, Any]]], path: Path, title: str) -> Path | None:
    """Plot final PSNR against learning rate, one line per method; None if there are no variants with learning rates.

    Solid: test views, dashed: training views. Lines are means over seeds, the range between extremes is shaded. The
    axis starts ``RATES_RANGE`` below the best value.
    """
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys(name.split("@")[0] for name in variants if "@" in name))
    if not methods:
        return None
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for i, method in enumerate(methods):
        rated = sorted(
            (float(name.split("@")[1]), runs) for name, runs in variants.items() if name.startswith(method + "@")
        )
        rates = [rate for rate, _ in rated]
        test = [[m["mean"]["psnr"] for m in runs] for _, runs in rated]
        axes.plot(rates, [np.mean(values) for values in test], label=method, marker=".", color=f"C{i}")
        axes.fill_between(rates, [*map(min, test)], [*map(max, test)], alpha=0.2, linewidth=0, color=f"C{i}")
        fit = [[m["fit_psnr"] for m in runs if m.get("fit_psnr") is not None] for _, runs in rated]
        if all(fit):
            axes.plot(rates, [np.mean(values) for values in fit], linestyle="--", color=f"C{i}")
    axes.set(
        xlabel="learning rate", ylabel="PSNR [dB]: test (solid), training views (dashed)", title=title, xscale="log"
    )
    best = max(m["mean"]["psnr"] for name, runs in variants.items() if "@" in name for m in runs)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], best - RATES_RANGE))
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return plots.save(figure, path)


def draw_crops(pictures: dict[str, Float[np.ndarray, "h w 3"]], path: Path, reference: str) -> Path:
    """Draw whole images in the first row, below them the same crop of each, where the reference has most detail."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    target = pictures[reference]
    top, left, height, width = busiest_window(target)
    n = len(pictures)
    shape = target.shape[0] / target.shape[1]
    figure = Figure(figsize=(3.2 * n, 3.2 * 2 * shape + 0.5), layout="constrained")
    for i, (name, picture) in enumerate(pictures.items()):
        whole, crop = figure.add_subplot(2, n, i + 1), figure.add_subplot(2, n, n + i + 1)
        whole.imshow(picture)
        whole.set_title(name)
        whole.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white"))
        crop.imshow(picture[top : top + height, left : left + width], interpolation="nearest")
        for axes in (whole, crop):
            axes.set_axis_off()
    return plots.save(figure, path)


def busiest_window(picture: Float[np.ndarray, "h w 3"], share: int = 3) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the window, 1/``share`` of each side, with the largest sum of gradients."""
    gray = picture.mean(-1)
    detail = np.abs(np.diff(gray, axis=0, append=gray[-1:])) + np.abs(np.diff(gray, axis=1, append=gray[:, -1:]))
    height, width = max(1, picture.shape[0] // share), max(1, picture.shape[1] // share)
    sums = np.pad(detail.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(top), int(left), height, width


def write(variants: dict[str, list[dict[str, Any]]], folder: Path) -> str:
    """Write ``comparison.json``, ``.md`` and ``.csv``; return the table as text.

    With several learning rates a second table shows each method at its own best rate.
    """
    rows, best = table(variants), table(learning_rates.at_best_rate(variants))
    io.write_json(folder / "comparison.json", variants)
    io.write_atomic(folder / "comparison.csv", tables.as_csv(rows) + "\n")
    markdown, text = tables.as_markdown(rows), tables.as_text(rows)
    if len(best) > 1:
        markdown += f"\n\n{learning_rates.BEST}:\n\n{tables.as_markdown(best)}"
        text += f"\n\n{learning_rates.BEST}:\n{tables.as_text(best)}"
    io.write_atomic(folder / "comparison.md", markdown + "\n")
    return text


def write_all(variants: dict[str, list[dict[str, Any]]], base: NerfConfig) -> str:
    """Write the table and the plots of a comparison into the folder of ``base``; return the table as text."""
    text = write(variants, base.folder)
    draw_curves(variants, base.folder / "curves.png", f"{base.scene}: test PSNR of fixed pixels")
    draw_rates(variants, base.folder / "rates.png", f"{base.scene}, {base.train.N_iters} steps")
    return text


def draw_test_view(base: NerfConfig, variants: dict[str, NerfConfig]) -> None:
    """Draw ``crops.png``: the photograph of the first test view and its rendering by each method's first seed."""
    if base.run.final_pixels:
        return
    trained = next(filter(None, (checkpoint.newest_readable(each.folder) for each in variants.values())), None)
    base = setup.with_background(base, trained[0]["config"] if trained is not None else None)
    scene = setup.load_scene(base, pose_check=False)
    view = scene.test[0]
    name = views.picture_name(scene, view)
    pictures = {"photograph": pixels.view_image(scene, view).double().numpy()}
    for method, variant in variants.items():
        file = variant.folder / "test" / "final" / name
        if file.is_file():
            pictures[method] = images.read(file).astype("float64")
    draw_crops(pictures, base.folder / "crops.png", reference="photograph")
