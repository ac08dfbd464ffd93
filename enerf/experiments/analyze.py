"""Analysis of checkpoints: condition numbers, row norms and extreme Hessian eigenvalues over training steps.

Several runs are analyzed together, all runs of a scene on the same batch. The task of a run is read from its
checkpoints; it opens the run as a ``RunProbe``. The record of each checkpoint is saved when it is complete; an
interrupted analysis is resumed by the same call.
"""

import logging
import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from enerf.conditioning import weight_views
from enerf.conditioning.diagnostics import curvature, eigenvalues, layer_inputs, spectrum
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.core import device as core_device
from enerf.core import io
from enerf.core.errors import InputError
from enerf.core.progress import on_terminal, progress_bar
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe
from enerf.experiments import analysis_report
from enerf.experiments.options import AnalyzeOptions
from enerf.experiments.records import Records
from enerf.tasks import registry

log = logging.getLogger("enerf")

FORMAT = 2  # version of the records; records of another version are not reused
TOLERANCE = 1e-2  # relative, of the extreme eigenvalues of the Hessian
JACOBIAN_BYTES = 4 << 30  # the Gauss–Newton spectrum is skipped if it needs more


def analyze(folders: list[Path], chosen: AnalyzeOptions) -> str:
    """Measure the checkpoints without a record; return the table, and the folder of the results.

    Damaged checkpoints are named in a warning, and others take their place.

    Raises
    ------
    InputError
        If a folder is not a run or has no readable checkpoint, its task cannot be analyzed, its scene is missing, or a
        layer is unknown.
    KeyboardInterrupt
        If interrupted; the records so far are saved, and the same call resumes.
    """
    found = list(dict.fromkeys(folder.resolve() for folder in checkpoint.find_runs([f.expanduser() for f in folders])))
    chosen = _without_missing_extras(chosen)
    out = Path(chosen.out).expanduser() if chosen.out else Path(os.path.commonpath(found)) / "analysis"
    io.remove_leftovers(out)
    settings = {"format": FORMAT, "rays": chosen.rays, "seed": chosen.seed, "layers": chosen.layers}
    records = Records(out / "analysis.json", settings)
    plan = {folder: _readable(checkpoint.checkpoints(folder), chosen.checkpoints, records) for folder in found}
    missing = {
        folder: [path for path in plan[folder] if _is_missing(records, path, plan[folder], chosen)] for folder in plan
    }
    core_device.prepare(core_device.resolve_device(chosen.device))
    try:
        with _bar(sum(map(len, missing.values()))) as bar:
            for folder, paths in ((folder, paths) for folder, paths in missing.items() if paths):
                probe = open_probe(folder, chosen)
                for path in paths:
                    bar.set_postfix_str(f"{folder.name} {path.stem}", refresh=on_terminal())
                    bar.update()
                    try:
                        with sdpa_kernel(SDPBackend.MATH):  # other attention kernels have no second derivatives
                            record = measure(probe.at(path), chosen, _is_end(path, plan[folder]))
                        records.add(path, {"scene": probe.scene, "method": probe.method}, record)
                    except checkpoint.MissingCheckpoint:
                        log.warning("%s: deleted by its run since the analysis began; left out", path)
    finally:
        text = _write(records, plan, out, chosen)
    if not text:
        raise InputError("the runs deleted every chosen checkpoint before it was measured; run the same command again")
    return f"{text}\n{out}"


def _write(records: Records, plan: dict[Path, list[Path]], out: Path, chosen: AnalyzeOptions) -> str:
    """Write table and plots of all records; return the table."""
    repeated = Counter(folder.name for folder in plan)
    histories = []
    for folder, paths in plan.items():
        name = folder.name if repeated[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        histories += [{**history, "name": name}] if (history := records.history(paths)) else []
    return analysis_report.write(histories, out, describe(chosen)) if histories else ""


def evenly_spaced(paths: list[Path], n: int) -> list[Path]:
    """Return ``n`` paths, evenly spaced by index, with the first and the last; all if ``n`` is 0.

    >>> [path.name for path in evenly_spaced([Path("a"), Path("b"), Path("c"), Path("d")], 2)]
    ['a', 'd']
    """
    if n <= 0 or n >= len(paths):
        return paths
    return [paths[round(i * (len(paths) - 1) / (n - 1))] for i in range(n)] if n > 1 else paths[-1:]


def _readable(paths: list[Path], n: int, records: Records) -> list[Path]:
    """Return ``n`` evenly spaced checkpoints that have a record or can be read.

    Raises
    ------
    InputError
        If there are none; the message is that of the newest.
    """
    newest: InputError | None = None
    while chosen := evenly_spaced(paths, n):
        damaged = []
        for path in reversed(chosen):
            try:
                if records.get(path) is None:
                    checkpoint.read(path)
            except InputError as error:
                log.warning("%s; left out of the analysis", error)
                damaged.append(path)
                newest = newest or error
        if not damaged:
            return chosen
        paths = [path for path in paths if path not in damaged]
    raise newest or InputError("found no checkpoint, expected at least one")


def open_probe(folder: Path, chosen: AnalyzeOptions) -> RunProbe:
    """Open a run for analysis.

    Raises
    ------
    InputError
        If the folder is not a run, or its task cannot be analyzed.
    """
    task, content = registry.with_part("probe", folder)
    settings = ProbeSettings(chosen.layers, chosen.rays, chosen.seed, chosen.datadir, chosen.device)
    opened: RunProbe = task.load("probe")(content["config"], settings)
    return opened


def measure(probe: CheckpointProbe, chosen: AnalyzeOptions, at_end: bool = False) -> dict[str, Any]:
    """Measure one checkpoint; return its record, see ``analysis_report``."""
    began, names, loss = time.perf_counter(), probe.layers, probe.objective
    record: dict[str, Any] = {"step": probe.step, "layers": spectrum.layer_report(probe.model, names)}
    if not chosen.no_hessian:
        called = [name for name in names if _is_called(probe.model.get_submodule(name))]
        inputs = layer_inputs.record_layer_inputs(probe.model, called, lambda: loss.model(loss.inputs))
        for name, layer_input in inputs.items():
            kappa, rank = layer_inputs.extended_condition_number(layer_input)
            record["layers"][name] |= {"kappa_inputs": kappa, "rank_inputs": rank}
        hessian = curvature.hessian(loss)
        ends = eigenvalues.extremes(hessian, tolerance=TOLERANCE, seed=chosen.seed)
        record["curvature"] = {
            **{"loss": loss.value(), "parameters": hessian.shape[0]},
            **{"hessian_max": ends.largest[0], "hessian_min": ends.smallest[0]},
            **{"converged": ends.converged, "products": ends.products},
            **_gauss_newton(loss),
        }
        if chosen.density and at_end:
            found = eigenvalues.density(hessian, chosen.density, seed=chosen.seed)
            points = {"values": found.values.tolist(), "weights": found.weights.tolist()}
            record["density"] = {"asked": chosen.density, **points}
    return {**record, "seconds": time.perf_counter() - began}


def _is_called(module: nn.Module) -> bool:
    """Return whether a layer's ``forward`` is called; attention uses the weights of its output layer directly."""
    kinds = (nn.Linear, *weight_views.CONVOLUTIONS)
    return isinstance(module, kinds) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _gauss_newton(loss: Objective) -> dict[str, Any]:
    """Return statistics of the eigenvalues of the Gauss–Newton matrix; empty if its Jacobian is too large."""
    size = sum(p.numel() * p.element_size() for p in loss.free_parameters()) * loss.targets.numel()
    if size > JACOBIAN_BYTES:
        log.info(
            "the Gauss–Newton matrix is skipped: its Jacobian has %.0f GiB; use fewer --rays or --layers", size / 2**30
        )
        return {}
    values = curvature.gauss_newton_spectrum(loss)
    kappa, rank = eigenvalues.condition_number_above(values, curvature.rounding(values, loss.inputs.dtype))
    return {
        **{"gauss_newton_max": float(values[0]), "gauss_newton_kappa": kappa, "gauss_newton_rank": rank},
        "gauss_newton_effective_rank": float(spectrum.entropy_rank(values)),
        "gauss_newton_trace": float(values.sum()),
    }


def describe(chosen: AnalyzeOptions) -> str:
    """Return a description of what was measured, and how."""
    if chosen.no_hessian:
        return f"Weights of the layers {chosen.layers or 'hidden'}."
    parameters = f"the parameters of {chosen.layers}" if chosen.layers else "all parameters"
    return (
        f"Weights of the layers {chosen.layers or 'hidden'}; curvature by {parameters} of the training loss of "
        f"{chosen.rays} rays of the training views, points of a shape, pixels of an image or training images, without "
        "jitter, noise and augmentation, in fp32."
    )


def _without_missing_extras(chosen: AnalyzeOptions) -> AnalyzeOptions:
    """Return the options with ``no_hessian`` set if the packages that it needs are not installed."""
    if chosen.no_hessian:
        return chosen
    try:
        for name in ("curvlinops", "scipy.sparse.linalg"):
            eigenvalues.import_extra(name)
    except ImportError as error:
        log.info("weights only: %s", error)
        return replace(chosen, no_hessian=True)
    return chosen


def _is_missing(records: Records, path: Path, paths: list[Path], chosen: AnalyzeOptions) -> bool:
    """Return whether a checkpoint has no record, or its record lacks requested values."""
    record = records.get(path)
    if record is None or (not chosen.no_hessian and "curvature" not in record):
        return True
    wanted = chosen.density if _is_end(path, paths) and not chosen.no_hessian else 0
    return bool(wanted) and record.get("density", {}).get("asked") != wanted


def _is_end(path: Path, paths: list[Path]) -> bool:
    return path in (paths[0], paths[-1])


def _bar(n: int) -> Any:
    """Progress bar of the analyzed checkpoints."""
    shown = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}, ETA {remaining}{postfix}]"
    return progress_bar(n, "analyze", "checkpoint", bar_format=shown)
