"""Hallway: the checkpoints of finished runs to condition numbers, row norms and Hessian extremes over steps.

Runs are analysed side by side, all of one scene on the same batch. What a run is of (a scene, a shape, pictures) is
told by its checkpoints; a **subject** knows how to open one kind. What is measured of a checkpoint is kept at once, and
the same call goes on from there.
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
from enerf.core.progress import on_terminal, progress_bar
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe
from enerf.experiments import analysis_report
from enerf.experiments.options import AnalyzeOptions
from enerf.experiments.records import Records
from enerf.tasks import registry

log = logging.getLogger("enerf")

FORMAT = 1  # of what is measured; another number, and everything is measured anew
TOLERANCE = 1e-2  # relative, of the Hessian's extremes
JACOBIAN_BYTES = 4 << 30  # the Gauss–Newton spectrum is left out where it would need more


def analyze(folders: list[Path], chosen: AnalyzeOptions) -> str:
    """Measure the checkpoints that are not measured yet; returns the table, and where the rest is.

    Raises
    ------
    InputError
        If a folder is no run, its kind is not known, its scene is gone, or a layer is unknown.
    KeyboardInterrupt
        If interrupted; what is measured is written, and the same call goes on.
    """
    found = list(dict.fromkeys(folder.resolve() for folder in checkpoint.find_runs([f.expanduser() for f in folders])))
    chosen = _possible(chosen)
    out = Path(chosen.out).expanduser() if chosen.out else Path(os.path.commonpath(found)) / "analysis"
    kept = {"format": FORMAT, "rays": chosen.rays, "seed": chosen.seed, "layers": chosen.layers}
    records = Records(out / "analysis.json", kept)
    plan = {folder: spread(checkpoint.checkpoints(folder), chosen.checkpoints) for folder in found}
    missing = {
        folder: [path for path in plan[folder] if _lacks(records, path, plan[folder], chosen)] for folder in plan
    }
    core_device.prepare(core_device.resolve_device(chosen.device))
    try:
        with _bar(sum(map(len, missing.values()))) as bar:
            for folder, paths in ((folder, paths) for folder, paths in missing.items() if paths):
                probe = open_probe(folder, chosen)
                for path in paths:
                    bar.set_postfix_str(f"{folder.name} {path.stem}", refresh=on_terminal())
                    with sdpa_kernel(SDPBackend.MATH):  # attention's other kernels have no second derivatives
                        record = measured(probe.at(path), chosen, _is_end(path, plan[folder]))
                    records.add(path, {"scene": probe.scene, "method": probe.method}, record)
                    bar.update()
    finally:
        text = _written(records, plan, out, chosen)
    return f"{text}\n{out}"


def _written(records: Records, plan: dict[Path, list[Path]], out: Path, chosen: AnalyzeOptions) -> str:
    """Table and pictures of all that is measured; returns the table."""
    repeated = Counter(folder.name for folder in plan)
    histories = []
    for folder, paths in plan.items():
        name = folder.name if repeated[folder.name] == 1 else f"{folder.parent.name}/{folder.name}"
        histories += [{**told, "name": name}] if (told := records.history(paths)) else []
    return analysis_report.write(histories, out, words(chosen)) if histories else ""


def spread(paths: list[Path], n: int) -> list[Path]:
    """``n`` of the paths, evenly spread by their number, first and last among them; all if ``n`` is 0.

    >>> [path.name for path in spread([Path("a"), Path("b"), Path("c"), Path("d")], 2)]
    ['a', 'd']
    """
    if n <= 0 or n >= len(paths):
        return paths
    return [paths[round(i * (len(paths) - 1) / (n - 1))] for i in range(n)] if n > 1 else paths[-1:]


def open_probe(folder: Path, chosen: AnalyzeOptions) -> RunProbe:
    """Open a run for analysis.

    Raises
    ------
    InputError
        If it is no run, or its task cannot be analyzed.
    """
    task, content = registry.with_part("probe", folder)
    settings = ProbeSettings(chosen.layers, chosen.rays, chosen.seed, chosen.datadir, chosen.device)
    opened: RunProbe = task.load("probe")(content["config"], settings)
    return opened


def measured(probe: CheckpointProbe, chosen: AnalyzeOptions, at_end: bool = False) -> dict[str, Any]:
    """The record of one checkpoint; see ``evaluation.analysis``."""
    began, names, loss = time.perf_counter(), probe.layers, probe.objective
    record: dict[str, Any] = {"step": probe.step, "layers": spectrum.layer_report(probe.model, names)}
    if not chosen.no_hessian:
        told = [name for name in names if _is_called(probe.model.get_submodule(name))]
        inputs = layer_inputs.record_layer_inputs(probe.model, told, lambda: loss.model(loss.inputs))
        for name, seen in inputs.items():
            kappa, rank = layer_inputs.extended_condition_number(seen)
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
    """Whether a layer is called as one with a matrix; attention applies its output layer out of sight."""
    kinds = (nn.Linear, *weight_views.CONVOLUTIONS)
    return isinstance(module, kinds) and not isinstance(module, NonDynamicallyQuantizableLinear)


def _gauss_newton(loss: Objective) -> dict[str, Any]:
    """What the eigenvalues of the Gauss–Newton matrix tell; nothing if its Jacobian would be too large."""
    size = sum(p.numel() * p.element_size() for p in loss.free_parameters()) * loss.targets.numel()
    if size > JACOBIAN_BYTES:
        log.info("no Gauss–Newton matrix: its Jacobian has %.0f GB; fewer --rays or --layers help", size / 2**30)
        return {}
    values = curvature.gauss_newton_spectrum(loss)
    kappa, rank = eigenvalues.condition_number_above(values, curvature.rounding(values, loss.inputs.dtype))
    return {
        **{"gauss_newton_max": float(values[0]), "gauss_newton_kappa": kappa, "gauss_newton_rank": rank},
        "gauss_newton_effective_rank": float(spectrum.entropy_rank(values)),
        "gauss_newton_trace": float(values.sum()),
    }


def words(chosen: AnalyzeOptions) -> str:
    """What was measured, and how."""
    if chosen.no_hessian:
        return f"Weights of the layers {chosen.layers or 'hidden'}."
    parameters = f"the parameters of {chosen.layers}" if chosen.layers else "all parameters"
    return (
        f"Weights of the layers {chosen.layers or 'hidden'}; curvature by {parameters} of the training loss of "
        f"{chosen.rays} rays of the training views, points of a shape or training images, without jitter, noise and "
        "augmentation, in fp32."
    )


def _possible(chosen: AnalyzeOptions) -> AnalyzeOptions:
    """What was chosen, without what needs an extra that is not there."""
    if chosen.no_hessian:
        return chosen
    try:
        for name in ("curvlinops", "scipy.sparse.linalg"):
            eigenvalues.import_extra(name)
    except ImportError as error:
        log.info("weights only: %s", error)
        return replace(chosen, no_hessian=True)
    return chosen


def _lacks(records: Records, path: Path, paths: list[Path], chosen: AnalyzeOptions) -> bool:
    """Whether something that was asked for is not measured yet."""
    record = records.of(path)
    if record is None or (not chosen.no_hessian and "curvature" not in record):
        return True
    wanted = chosen.density if _is_end(path, paths) and not chosen.no_hessian else 0
    return bool(wanted) and record.get("density", {}).get("asked") != wanted


def _is_end(path: Path, paths: list[Path]) -> bool:
    return path in (paths[0], paths[-1])


def _bar(n: int) -> Any:
    """Progress bar of the analyzed checkpoints."""
    shown = "{desc} {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}, ETA {remaining}{postfix}]"
    return progress_bar(n, "analyse", "checkpoint", bar_format=shown)
