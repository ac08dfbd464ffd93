"""Commands that train runs again, from the options that they saved."""

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Any

from enerf.config import options, parser
from enerf.config.methods import Methods
from enerf.config.options import RunConfig
from enerf.core import io
from enerf.core.errors import InputError
from enerf.experiments import variants
from enerf.experiments.reported_runs import COMPARISON, ReportedRun
from enerf.tasks.registry import Task

_LEFT_OUT = {"no_reload", "resume_with_changes"}  # of how a run was resumed


def command(run: ReportedRun) -> str:
    """Return the command that trains a run: every option that differs from its default."""
    config = parser.from_dict(run.task.load("config"), run.options)
    return " ".join(["enerf", run.task.command, *arguments(config)])


def arguments(config: RunConfig, leave_out: Sequence[str] = ()) -> list[str]:
    """Return quoted command-line arguments of the options that differ from their defaults.

    >>> from enerf.tasks.shape.config import ShapeConfig
    >>> arguments(parser.from_dict(ShapeConfig, {"mesh": "a b.ply", "no_reload": True, "weight_norm": True}))
    ['--mesh', "'a b.ply'", '--weight_norm']
    """
    found = []
    for table in dataclasses.fields(config):
        values = getattr(config, table.name)
        for item in dataclasses.fields(values):
            value = getattr(values, item.name)
            if value == item.default or item.name in _LEFT_OUT or item.name in leave_out:
                continue
            found.append(f"--{item.name}")
            if value is not True:
                found.append(shlex.quote(str(value)))
    return found


def comparison_command(runs: Sequence[ReportedRun]) -> str | None:
    """Return the command of the comparison that runs of one folder belong to.

    None if they are no comparison, or if the command would not train each of them with the options that it saved.
    """
    parts = _parts(runs)
    if parts is None:
        return None
    task, methods, rates, seeds = runs[0].task, *parts
    known: Methods = task.load("methods")
    if any(method not in known.changes for method in methods):
        return None
    base = _base(runs, task, known, rates)
    by_folder = {run.folder.name: run for run in runs}
    for name, run in by_folder.items():
        variant, _, seed = name.rpartition("_seed")
        method, _, rate = variant.partition("@")
        expected = variants.variant_config(base, method, float(rate) if rate else None, int(seed))
        if _trained_with(expected) != _trained_with(parser.from_dict(task.load("config"), run.options)):
            return None
    words = ["enerf", "compare", task.kind, *arguments(base), "--methods", ",".join(methods)]
    words += ["--seeds", ",".join(map(str, seeds))] if seeds != [0] else []
    return " ".join([*words, *(["--lrates", ",".join(f"{rate:g}" for rate in rates)] if rates else [])])


def _parts(runs: Sequence[ReportedRun]) -> tuple[list[str], list[float], list[int]] | None:
    """Return methods, learning rates and seeds of a comparison, in the order of its table."""
    folder = runs[0].folder.parent
    try:
        ordered = list(io.read_object(folder / COMPARISON))
        named = [run.folder.name.rpartition("_seed") for run in runs]
        variants = [*ordered, *(variant for variant, _, _ in named if variant not in ordered)]
        pairs = [variant.partition("@") for variant in variants]
        rates = [float(rate) for _, _, rate in pairs if rate]
        seeds = sorted({int(seed) for _, _, seed in named})
    except (InputError, ValueError):
        return None
    if rates and len(rates) < len(pairs):
        return None
    return list(dict.fromkeys(method for method, _, _ in pairs)), list(dict.fromkeys(rates)), seeds


def _base(runs: Sequence[ReportedRun], task: Task, known: Methods, rates: Sequence[float]) -> RunConfig:
    """Return the configuration that the variants of a comparison were made from, as far as they tell."""
    kind = task.load("config")
    values = dict(runs[0].options)
    set_by_methods = {name for changes in known.changes.values() for name in changes}
    for name in set_by_methods | set(known.common) | {"seed", "expname", "no_final_eval"}:
        values.pop(name, None)
    for name in set_by_methods - set(known.common) - ({"lrate"} if rates else set()):
        untouched = [run for run in runs if name not in known.changes[_method(run)]]
        values |= {name: untouched[0].options[name]} if untouched and name in untouched[0].options else {}
    if rates:
        values.pop("lrate", None)
    expname = str(runs[0].options.get("expname", "")).rpartition("/")[0]
    return parser.from_dict(kind, {**values, "expname": expname})


def _method(run: ReportedRun) -> str:
    return run.folder.name.rpartition("_seed")[0].partition("@")[0]


def _trained_with(config: RunConfig) -> dict[str, Any]:
    """Return the options that affect model, data or training, and the name of the run."""
    declared = options.declared(type(config))
    every = parser.to_dict(config)
    return {k: v for k, v in every.items() if k == "expname" or declared[k].metadata["affects"] != "neutral"}
