"""Hallway: one configuration, several methods and seeds, to a table, curves and crops side by side.

The arms run one after another with the same code, seeds, batches and steps, each in a folder of its own; they differ by
the options of ``methods`` and share every other byte. A finished arm is not run again, a half-finished one goes on. One
that meets a value that is not finite has failed, which is told beside the table.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from enerf.config import options, parser
from enerf.config.parser import AnyConfig, C
from enerf.core import images, io
from enerf.core.errors import InputError, NotFinite
from enerf.datasets.scenes import pixels
from enerf.engine import checkpoint, resume
from enerf.experiments import methods
from enerf.experiments.methods import Methods
from enerf.reporting import tables
from enerf.tasks.classifier import curves as classifier_curves
from enerf.tasks.classifier import report as classifier_report
from enerf.tasks.classifier import setup as classifier_setup
from enerf.tasks.classifier import train as classifier_train
from enerf.tasks.classifier.config import ClassifierConfig
from enerf.tasks.nerf import comparison as nerf_comparison
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import report as shape_report
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class CompareOptions:
    """comparison."""

    methods: str = options.option("plain,equilibrate", f"arms, from: {', '.join(methods.FIELDS)}")
    seeds: str = options.option("0", "seeds of each arm, such as 0,1,2")
    lrates: str = options.option("", "learning rates of each arm, such as 5e-4,1e-3; empty: the configuration's alone")


@dataclass(frozen=True)
class CompareClassifierOptions(CompareOptions):
    """comparison."""

    methods: str = options.option("bn,bn+w,bn+ws,bn+e", f"arms, from: {', '.join(methods.CLASSIFIERS)}")


@dataclass(frozen=True)
class Kind(Generic[C]):
    """What comparisons of one kind of run do.

    Attributes
    ----------
    methods, plain
        What each method changes, and what all of them start from.
    task
        Options that decide what is learned and how: an arm does not go on with others.
    train
        Trains and measures one arm; returns its metrics.
    write
        Writes table and curves of the arms so far, their metrics by name, into the base's folder; returns the table.
    draw
        Draws pictures of the first seed's arms at the end, side by side.
    resolve
        The base with what its data decides: epochs counted in steps, say.
    """

    methods: Methods
    plain: dict[str, Any]
    task: tuple[str, ...]
    train: Callable[[C], dict[str, Any] | None]
    write: Callable[[dict[str, list[dict[str, Any]]], C], str]
    draw: Callable[[C, dict[str, C]], None] = lambda base, arms: None
    resolve: Callable[[C], C] = lambda base: base


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
    names, seeds = read_methods(chosen.methods, kind.methods), read_seeds(chosen.seeds)
    named = {arm_name(name, lrate): (name, lrate) for lrate in read_lrates(chosen.lrates) for name in names}
    for of in named.values():
        arm_config(base, *of, seeds[0]).check()  # a mistake is told before anything is read or trained
    base = kind.resolve(base)
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in named}
    failed: list[str] = []
    text = ""
    for i, (seed, name) in enumerate([(s, n) for s in seeds for n in named]):
        arm = arm_config(base, *named[name], seed)
        log.info("arm %d of %d: %s, seed %d (%s)", i + 1, len(seeds) * len(named), name, seed, arm.folder)
        try:
            arms[name].append(resume.metrics_of(arm) or trained(_unchanged(arm)))
        except NotFinite as error:
            failed.append(f"{name}, seed {seed}, failed: {error}")
            log.warning(failed[-1])
            continue
        text = kind.write({name: runs for name, runs in arms.items() if runs}, base)
    if not any(arms.values()):
        raise NotFinite(f"all arms failed; {failed[-1]}")
    kind.draw(base, {name: arm_config(base, *of, seeds[0]) for name, of in named.items()})
    return "\n".join([text, *failed])


def _unchanged(arm: C) -> C:
    """The arm, if what it was trained with so far is what is asked for: a comparison names its arms by it.

    Raises
    ------
    InputError
        If it was trained on something else, or otherwise.
    """
    found = [] if arm.run.no_reload else checkpoint.checkpoints(arm.folder)
    if found:
        saved, kind = checkpoint.read(found[-1])["config"], KINDS[arm.kind]
        if changed := checkpoint.differing(saved, parser.to_dict(arm), kind.task):
            raise InputError(
                f"{arm.folder}: this arm was trained with other options: {', '.join(changed)}; expected the same, "
                "another --expname, or --no_reload"
            )
    return arm


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
    kind: Kind[C] = KINDS[base.kind]
    changed = {"lrate": base.train.lrate, **kind.plain, **kind.methods[method]}
    changed |= {} if lrate is None else {"lrate": lrate}
    return parser.replace(base, **changed, seed=seed, expname=name, no_final_eval=False)


def read_methods(text: str, known: Methods = methods.FIELDS) -> list[str]:
    """The methods named by the option, in its order.

    >>> read_methods("plain, equilibrate")
    ['plain', 'equilibrate']
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names or len(set(names)) < len(names):
        raise InputError(f"option --methods: found {text!r}, expected different names from {', '.join(known)}")
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
    text = nerf_comparison.write(arms, base.folder)
    nerf_comparison.draw_curves(arms, base.folder / "curves.png", f"{base.scene}: test PSNR of fixed pixels")
    nerf_comparison.draw_rates(arms, base.folder / "rates.png", f"{base.scene}, {base.train.N_iters} steps")
    return text


def _draw_crops(base: NerfConfig, arms: dict[str, NerfConfig]) -> None:
    """The first test view: the photograph and what each method's first seed makes of it."""
    if base.run.final_pixels:
        return
    scene = nerf_setup.load_scene(base)
    view = scene.test[0]
    name = f"{Path(scene.image_names[view]).stem}.png"
    pictures = {"photograph": pixels.view_image(scene, view).double().numpy()}
    for method, arm in arms.items():
        file = arm.folder / "test" / "final" / name
        if file.is_file():
            pictures[method] = images.read(file).astype("float64")
    nerf_comparison.draw_crops(pictures, base.folder / "crops.png", reference="photograph")


def _write_shapes(arms: dict[str, list[dict[str, Any]]], base: ShapeConfig) -> str:
    """Table and curves of shapes."""
    measured = [{**run, "method": name, "model": ""} for name, some in arms.items() for run in some]
    rows = shape_report.table(measured)
    io.write_json(base.folder / "comparison.json", measured)
    io.write_atomic(base.folder / "comparison.md", tables.as_markdown(rows) + "\n")
    if base.run.i_eval:
        shape_report.draw_curves(measured, base.folder / "curves.png", f"{base.scene}: {measured[0]['target']}")
    return tables.as_text(rows)


def _write_classifiers(arms: dict[str, list[dict[str, Any]]], base: ClassifierConfig) -> str:
    """Table and curves of classifiers, each at its best of several rates, beside the paper's figures."""
    measured = _labelled(arms)
    rows = classifier_report.table(measured)
    has_rates = len({name.partition("@")[2] for name in arms}) > 1
    best = nerf_comparison.at_best_rate(arms, "test", "accuracy") if has_rates else {}
    known = classifier_report.published(measured)
    parts = [
        ("", rows),
        (nerf_comparison.BEST, classifier_report.table(_labelled(best))),
        (classifier_report.PROTOCOL, known),
    ]
    shown = [(words, table) for words, table in parts if len(table) > 1]
    io.write_json(base.folder / "comparison.json", measured)
    markdown = [
        f"{words}:\n\n{tables.as_markdown(table)}" if words else tables.as_markdown(table) for words, table in shown
    ]
    io.write_atomic(base.folder / "comparison.md", "\n\n".join(markdown) + "\n")
    title = f"{rows[1][0]}, {rows[1][1]}"
    classifier_curves.draw(measured, base.folder / "curves.png", title)
    classifier_curves.draw_rates(measured, base.folder / "rates.png", title)
    return "\n\n".join(
        f"{words}:\n{tables.as_text(table)}" if words else tables.as_text(table) for words, table in shown
    )


def _labelled(arms: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The metrics of all arms, each with the name of its own."""
    return [{**run, "arm": name} for name, some in arms.items() for run in some]


# By the configuration's kind.
KINDS: dict[str, Kind[Any]] = {
    "nerf": Kind(
        methods.FIELDS, methods.OF_FIELDS, nerf_setup.TASK_OPTIONS, nerf_train.train, _write_scenes, _draw_crops
    ),
    "shape": Kind(methods.FIELDS, methods.OF_FIELDS, shape_setup.TASK_OPTIONS, shape_train.fit, _write_shapes),
    "classifier": Kind(
        methods.CLASSIFIERS,
        methods.OF_CLASSIFIERS,
        classifier_setup.TASK_OPTIONS,
        classifier_train.train,
        _write_classifiers,
        resolve=classifier_setup.resolved,
    ),
}
