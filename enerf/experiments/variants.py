"""Variants of a comparison: one configuration with the options of a method, a learning rate, a seed and a scene."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from enerf.config import options, parser
from enerf.config.methods import Methods, methods_with, split_ratio, updates_matrices
from enerf.config.options import RunConfig
from enerf.config.parser import C
from enerf.core.errors import InputError, shown
from enerf.engine import checkpoint, resume, run_record
from enerf.experiments.options import CompareOptions
from enerf.fields.backends.registry import Resolved
from enerf.tasks import registry

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class Variant:
    """One run of a comparison or a sweep.

    Attributes
    ----------
    scene
        Name of its data in a sweep over several; empty if there is one.
    name
        Its method, with its learning rate if that is not the configuration's.
    seed
        Its seed.
    config
        Its options.
    """

    scene: str
    name: str
    seed: int
    config: RunConfig

    @property
    def label(self) -> str:
        """Words for messages."""
        return f"{self.scene}/{self.name}, seed {self.seed}" if self.scene else f"{self.name}, seed {self.seed}"


def plan(bases: Mapping[str, RunConfig], chosen: CompareOptions) -> list[Variant]:
    """Return the variants of configurations, by scene: all of one seed first, so that early results compare methods.

    Raises
    ------
    InputError
        For an unknown method, an invalid seed or learning rate, an impossible combination of options, or two methods
        that are the same in all their variants.
    """
    known: Methods = registry.task(next(iter(bases.values())).kind).load("methods")
    names = read_methods(known.default if chosen.methods == "default" else chosen.methods, known)
    seeds, lrates = read_seeds(chosen.seeds), read_lrates(chosen.lrates)
    variants = [
        Variant(scene, variant_name(name, lrate), seed, variant_config(base, name, lrate, seed))
        for seed in seeds
        for scene, base in bases.items()
        for lrate in lrates
        for name in names
    ]
    for variant in variants:
        variant.config.check()
    _check_different({name: variants[i :: len(names)] for i, name in enumerate(names)})
    return variants


def _check_different(of_methods: Mapping[str, Sequence[Variant]]) -> None:
    """Raise ``InputError`` if all variants of two methods have the same options but for the folder of their results."""
    found: dict[tuple[str, ...], str] = {}
    for name, variants in of_methods.items():
        key = tuple(_training(variant.config) for variant in variants)
        if (other := found.setdefault(key, name)) != name:
            raise InputError(
                f"option --methods: found {other} and {name}, which are the same training with the other options, "
                "expected different ones"
            )


def _training(config: RunConfig) -> str:
    """All options but the folder of the results; a rate of the matrices that is the other one is none of its own."""
    values = parser.to_dict(config) | {"expname": ""}
    values["lrate_matrices"] = values.get("lrate_matrices") or values["lrate"]
    return repr(values)


def warn_of_overridden(base: RunConfig) -> None:
    """Log the options of a configuration that every method sets itself."""
    known: Methods = registry.task(base.kind).load("methods")
    values = parser.to_dict(base)
    for name, value in known.common.items():
        if values[name] != value:
            log.warning("--%s %s has no effect here: each method of a comparison has its own", name, values[name])


def finished(config: RunConfig) -> dict[str, Any] | None:
    """Return the metrics of a finished run, or None."""
    task = registry.task(config.kind)
    return resume.finished_metrics(config, task.load("input_files") if task.has("input_files") else None)


def shared_backend(
    base: RunConfig, variants: Sequence[RunConfig], elsewhere: Resolved | None = None
) -> Resolved | None:
    """Return the backend and precision of all variants; None if all are finished, or the task has no backends.

    They are ``elsewhere``, what the options name for runs on another computer, if that is given; else those of the
    first variant that was trained before, otherwise resolved from the options of the base. A
    variant that was trained with others is reported; if it is half-finished, it is continued with its own.
    """
    task = registry.task(base.kind)
    if not task.has("resolve_backend"):
        return None
    measured = [finished(variant) for variant in variants]
    recorded = {v.run.expname: recorded_backend(v, metrics) for v, metrics in zip(variants, measured, strict=True)}
    earlier = {name: record for name, record in recorded.items() if record is not None}
    first = next(iter(earlier.values()), None)
    shared: Resolved | None = None
    if not all(measured):
        shared = elsewhere or task.load("resolve_backend")(base, first)
    for variant, metrics in zip(variants, measured, strict=True):
        if metrics and metrics.get("trained_earlier"):
            log.warning("variant %s changed its backend or precision during the training", variant.run.expname)
    for name, record in earlier.items():
        if (expected := shared or first) is not None and record.differs(expected):
            both = [f"{each} on {each.device}" if str(record) == str(expected) else each for each in (record, expected)]
            log.warning("variant %s was trained with %s, the others with %s", name, *both)
    return shared


def recorded_backend(variant: RunConfig, metrics: dict[str, Any] | None) -> Resolved | None:
    """Return what a variant was trained with, by its metrics if it is finished, else by its checkpoint."""
    if metrics is not None:
        return Resolved.of({**metrics, "device": str(metrics.get("device")).partition(":")[0]})
    found = None if variant.run.no_reload else checkpoint.newest_readable(variant.folder)
    return run_record.checkpoint_backend(found[0]) if found else None


def check_unchanged(variant: RunConfig) -> None:
    """Check that a variant was trained so far with the options that are requested now.

    Raises
    ------
    InputError
        If an option that affects the model, the data or the training was different, or if it was trained for more
        steps than are requested.
    """
    found = None if variant.run.no_reload else checkpoint.newest_readable(variant.folder)
    if not found:
        return
    content, _ = found
    changed = resume.changed_options(content["config"], variant, "model", "data", "training")
    if content["step"] > variant.train.N_iters:
        changed.append(f"N_iters ({content['step']} steps done there, {variant.train.N_iters} requested)")
    saved_seconds = content["config"].get("max_seconds", 0)
    if not changed and 0 < variant.train.max_seconds < saved_seconds:
        changed.append(f"max_seconds (saved {saved_seconds:g}, requested {variant.train.max_seconds:g})")
    if changed:
        raise InputError(
            f"{variant.folder}: this variant was trained with other options: {', '.join(changed)}; expected the same, "
            "another --expname, or --no_reload"
        )


def variant_name(method: str, lrate: float | None) -> str:
    """Return the name of a variant: its method, and its learning rate if that is not the configuration's.

    >>> variant_name("he", None), variant_name("he", 0.002)
    ('he', 'he@0.002')
    """
    return method if lrate is None else f"{method}@{lrate:g}"


def variant_config(base: C, method: str, lrate: float | None, seed: int) -> C:
    """Return the configuration of one variant: the base with the method's options, in a folder of its own.

    It is never resumed with changes: its figures would be of two trainings.
    """
    folder = variant_name(method, lrate).replace("*", "x")  # not every file system has stars
    name = f"{base.run.expname or base.scene}/{folder}_seed{seed}"
    known: Methods = registry.task(base.kind).load("methods")
    method, ratio = split_ratio(method)
    changed = {"lrate": base.train.lrate, **known.common, **known.changes[method]}
    changed |= {} if lrate is None else {"lrate": lrate}
    changed |= {} if ratio is None else {"lrate_matrices": ratio * changed["lrate"]}
    if "no_final_eval" in options.declared(type(base)):
        changed |= {"no_final_eval": False}
    return parser.replace(base, **changed, seed=seed, expname=name, resume_with_changes=False)


def read_methods(text: str, known: Methods) -> list[str]:
    """Return the methods that the option ``--methods`` names, in its order.

    ``muon*5`` is ``muon`` with a learning rate of the matrices of 5 times that of the other parameters.

    >>> read_methods("plain, equilibrate", Methods({"plain": {}, "equilibrate": {"equilibrate": "row"}}))
    ['plain', 'equilibrate']

    Raises
    ------
    InputError
        If a name is unknown or repeated, or none is given.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if not _is_known(name, known)]
    if with_star := [name for name in unknown if "*" in name]:
        fitting = [name for name, changes in known.changes.items() if updates_matrices(changes)]
        raise InputError(
            f"option --methods: found {shown(with_star[0])}, expected a positive factor after the star, such as "
            f"muon*5, and before it one of {', '.join(fitting)}"
        )
    if unknown or not names or len(set(names)) < len(names):
        found = shown(unknown[0]) if unknown else f"{shown(text)}, a name twice" if names else "nothing"
        using = methods_with(unknown[0], known) if unknown else []
        near = get_close_matches(unknown[0], known.changes, n=1) if unknown and not using else []
        hint = f"; with that value of --conditioning: {', '.join(using)}" if using else ""
        hint += f"; the nearest is {near[0]}" if near else ""
        raise InputError(f"option --methods: found {found}, expected names from {', '.join(known.changes)}{hint}")
    return names


def _is_known(text: str, known: Methods) -> bool:
    """Whether a text names a method, with a ratio of rates only if it has an optimizer of matrices."""
    try:
        name, ratio = split_ratio(text)
    except ValueError:
        return False
    return name in known.changes and (ratio is None or updates_matrices(known.changes[name]))


def read_seeds(text: str) -> list[int]:
    """Return the seeds named by the option.

    >>> read_seeds("0,2")
    [0, 2]

    Raises
    ------
    InputError
        If one is negative, above 2^63 - 1, repeated or not a whole number.
    """
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or max(seeds) > options.LARGEST or len(set(seeds)) < len(seeds):
        raise InputError(
            f"option --seeds: found {shown(text)}, expected different whole numbers of 0 to {options.LARGEST}, such as "
            "0,1,2"
        )
    return seeds


def read_lrates(text: str) -> list[float | None]:
    """Return the learning rates named by the option; None is the configuration's.

    >>> read_lrates(""), read_lrates("5e-4,1e-3")
    ([None], [0.0005, 0.001])

    Raises
    ------
    InputError
        If one is not positive, not finite, repeated or not a number.
    """
    if not text.strip():
        return [None]
    try:
        lrates = [float(word) for word in text.split(",")]
    except ValueError:
        lrates = []
    names = {variant_name("", lrate) for lrate in lrates}  # of folders
    if not lrates or not 0 < min(lrates) <= max(lrates) < math.inf or len(names) < len(lrates):
        raise InputError(
            f"option --lrates: found {shown(text)}, expected positive numbers such as 5e-4,1e-3 that differ in their "
            "first six digits"
        )
    return [*lrates]
