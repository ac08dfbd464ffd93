"""Hallway: one configuration, several methods and seeds, to a table, curves and crops side by side.

The arms run one after another with the same code, seeds, batches and steps, each in a folder of its own; they differ by
the options of ``METHODS`` and share every other byte. A finished arm is not run again, a half-finished one goes on.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from enerf import config as options
from enerf import images, run_nerf, run_shape, runs
from enerf.config import AnyConfig, C, NerfConfig, ShapeConfig
from enerf.evaluation import comparison, finished, report, shape_report
from enerf.scenes import batches
from enerf.types import InputError

log = logging.getLogger("enerf")

# What each method changes. The scale-matched controls stand beside the maps: much of a gain may be the start's scale.
# They start from plain weights, whatever the configuration says of init, equilibrate and weight_norm.
PLAIN = {
    **{"init": "default", "weight_norm": False, "equilibrate": "none", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0},
}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "he": {"init": "he"},
    "glorot": {"init": "glorot"},
    "unit_row": {"init": "unit_row"},
    "weight_norm": {"weight_norm": True},
    "equilibrate": {"equilibrate": "row"},
    "detached": {"equilibrate": "row", "equilibrate_gradient": "detached"},
    "column": {"equilibrate": "column"},
    "row_column": {"equilibrate": "row_column"},
    "jacobi": {"equilibrate": "jacobi"},
    "ruiz": {"equilibrate": "ruiz"},
    "kept": {"equilibrate": "row", "equilibrate_scale": "kept", "init": "he"},
    "constant": {"equilibrate": "row", "equilibrate_scale": "constant", "init": "he"},
    "gain": {"equilibrate": "row", "equilibrate_scale": "learned", "init": "he"},
    # at the scale of the network's own start: sine layers have one that others do not
    "own_kept": {"equilibrate": "row", "equilibrate_scale": "kept"},
    "own_gain": {"equilibrate": "row", "equilibrate_scale": "learned"},
}


@dataclass(frozen=True)
class CompareOptions:
    """comparison."""

    methods: str = options.option("plain,equilibrate", f"arms, from: {', '.join(METHODS)}")
    seeds: str = options.option("0", "seeds of each arm, such as 0,1,2")
    lrates: str = options.option("", "learning rates of each arm, such as 5e-4,1e-3; empty: the configuration's alone")


@dataclass(frozen=True)
class Kind(Generic[C]):
    """What comparisons of one kind of run do.

    Attributes
    ----------
    train
        Trains and measures one arm; returns its metrics.
    write
        Writes table and curves of the arms so far, their metrics by name, into the base's folder; returns the table.
    draw
        Draws pictures of the first seed's arms at the end, side by side.
    """

    train: Callable[[C], dict[str, Any] | None]
    write: Callable[[dict[str, list[dict[str, Any]]], C], str]
    draw: Callable[[C, dict[str, C]], None]


def compare(base: C, chosen: CompareOptions) -> str:
    """Train and measure all arms; returns the table. Results are written after every arm.

    Raises
    ------
    InputError
        For an unknown method or a seed that is no number.
    KeyboardInterrupt
        If interrupted; the same call goes on where it stopped.
    """
    kind: Kind[C] = KINDS[base.kind]
    methods, seeds, lrates = read_methods(chosen.methods), read_seeds(chosen.seeds), read_lrates(chosen.lrates)
    named = {arm_name(method, lrate): (method, lrate) for lrate in lrates for method in methods}
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in named}
    text = ""
    for i, (seed, name) in enumerate([(s, n) for s in seeds for n in named]):
        arm = arm_config(base, *named[name], seed)
        log.info("arm %d of %d: %s, seed %d (%s)", i + 1, len(seeds) * len(named), name, seed, arm.folder)
        arms[name].append(finished.metrics_of(arm) or trained(arm))
        text = kind.write({name: runs for name, runs in arms.items() if runs}, base)
    kind.draw(base, {name: arm_config(base, *of, seeds[0]) for name, of in named.items()})
    return text


def trained(arm: AnyConfig) -> dict[str, Any]:
    """Train an arm and return its metrics."""
    metrics = KINDS[arm.kind].train(arm)
    if metrics is None:
        raise InputError("option --render_only: nothing is trained, so there is nothing to compare")
    return metrics


def arm_name(method: str, lrate: float | None) -> str:
    """How an arm is called: by its method, and its learning rate if that is not the configuration's.

    >>> arm_name("he", None), arm_name("he", 0.002)
    ('he', 'he@0.002')
    """
    return method if lrate is None else f"{method}@{lrate:g}"


def arm_config(base: C, method: str, lrate: float | None, seed: int) -> C:
    """The configuration of one arm: the base with the method's options, in a folder of its own."""
    name = f"{base.run.expname or base.scene}/{arm_name(method, lrate)}_seed{seed}"
    changed = {**PLAIN, **METHODS[method], "lrate": base.train.lrate if lrate is None else lrate}
    return options.replace(base, **changed, seed=seed, expname=name, no_final_eval=False)


def read_methods(text: str) -> list[str]:
    """The methods named by the option, in its order.

    >>> read_methods("plain, equilibrate")
    ['plain', 'equilibrate']
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(f"option --methods: found {text!r}, expected different names from {', '.join(METHODS)}")
    return names


def read_seeds(text: str) -> list[int]:
    """The seeds named by the option.

    >>> read_seeds("0,2")
    [0, 2]
    """
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise InputError(f"option --seeds: found {text!r}, expected different whole numbers such as 0,1,2")
    return seeds


def read_lrates(text: str) -> list[float | None]:
    """The learning rates named by the option; None stands for the configuration's.

    >>> read_lrates(""), read_lrates("5e-4,1e-3")
    ([None], [0.0005, 0.001])
    """
    if not text.strip():
        return [None]
    try:
        lrates = [float(word) for word in text.split(",")]
    except ValueError:
        lrates = []
    if not lrates or not 0 < min(lrates) <= max(lrates) < math.inf or len(set(lrates)) < len(lrates):
        raise InputError(f"option --lrates: found {text!r}, expected different positive numbers such as 5e-4,1e-3")
    return [*lrates]


def _write_scenes(arms: dict[str, list[dict[str, Any]]], base: NerfConfig) -> str:
    """Table and curves of scenes."""
    text = comparison.write(arms, base.folder)
    comparison.draw_curves(arms, base.folder / "curves.png", f"{base.scene}: test PSNR of fixed pixels")
    comparison.draw_rates(arms, base.folder / "rates.png", f"{base.scene}, {base.train.N_iters} steps")
    return text


def _draw_crops(base: NerfConfig, arms: dict[str, NerfConfig]) -> None:
    """The first test view: the photograph and what each method's first seed makes of it."""
    if base.run.final_pixels:
        return
    scene = runs.load_scene(base)
    view = scene.test[0]
    name = f"{Path(scene.image_names[view]).stem}.png"
    pictures = {"photograph": batches.photograph(scene, view).double().numpy()}
    for method, arm in arms.items():
        file = arm.folder / "test" / "final" / name
        if file.is_file():
            pictures[method] = images.read(file).astype("float64")
    comparison.draw_crops(pictures, base.folder / "crops.png", reference="photograph")


def _write_shapes(arms: dict[str, list[dict[str, Any]]], base: ShapeConfig) -> str:
    """Table and curves of shapes."""
    measured = [{**run, "method": name, "model": ""} for name, some in arms.items() for run in some]
    rows = shape_report.table(measured)
    report.write_json(base.folder / "comparison.json", measured)
    report.write_atomic(base.folder / "comparison.md", report.as_markdown(rows) + "\n")
    if base.run.i_eval:
        shape_report.draw_curves(measured, base.folder / "curves.png", f"{base.scene}: {measured[0]['target']}")
    return report.as_text(rows)


# By the configuration's kind.
KINDS: dict[str, Kind[Any]] = {
    "nerf": Kind(run_nerf.train, _write_scenes, _draw_crops),
    "shape": Kind(run_shape.fit, _write_shapes, lambda base, arms: None),
}
