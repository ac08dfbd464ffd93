"""Shape runs as mesh sources, for mesh extraction."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from enerf.core.errors import InputError
from enerf.engine import inputs, resume
from enerf.geometry.isosurface.source import MeshSource, MeshSourceSettings
from enerf.geometry.mesh import Mesh
from enerf.geometry.solid import Solid
from enerf.tasks.shape import setup
from enerf.tasks.shape.setup import OpenedField


def mesh_source(folder: Path, settings: MeshSourceSettings) -> MeshSource:
    """Return the occupancy, its logits or the signed distance of a shape run as a mesh source.

    Its box is [−1, 1]³, intersected with ``settings.box``. ``slope`` is None: a learned distance is not exact.

    Raises
    ------
    InputError
        If the run cannot be opened, the boxes do not intersect, or depth maps are to be fused.
    """
    if settings.fusion is not None:
        raise InputError(f"option --method: found 'fusion', expected 'march': {folder} is a shape without cameras")
    run = setup.open_field(folder, settings.device, settings.precision)
    box, level = settings.box, run.config.data.level if settings.level is None else settings.level
    run.field.requires_grad_(False)
    normalization, bounds = run.normalization, np.array([[-1.0] * 3, [1.0] * 3])
    if box is not None:
        requested = normalization.to_box(box)
        bounds = np.array([np.maximum(requested[0], -1), np.minimum(requested[1], 1)])
        if not (bounds[0] < bounds[1]).all():
            low, high = normalization.to_file(np.array([[-1.0] * 3, [1.0] * 3])).tolist()
            raise InputError(f"option --box: found {box.ravel().tolist()}, expected a box within {low} and {high}")
    is_occupancy = run.config.data.target == "occupancy"
    meaning = "logit 0 is a probability of 1/2" if is_occupancy else "distance 0 is the surface"
    if run.config.data.level:
        meaning = "values are 1 inside and 0 outside"
    return MeshSource(
        name=folder.resolve().name,
        field=run.field,
        box=torch.from_numpy(bounds).to(run.device, torch.float32),
        iso_value=level,
        inside="above" if is_occupancy else "below",
        description=f"level {level:g}; {meaning}",
        to_world=normalization.to_file,
        from_world=normalization.to_box,
        bounds=box,
        signs=run.signs,
        solid=partial(_solid, run, settings.source),
        file_name="extracted.ply",  # mesh.ply is that of metrics.json
    )


def _solid(run: OpenedField, source: str) -> Solid | None:
    """Return the solid that a run was fitted to, from its file or from ``source``; None if that is gone or another."""
    config = replace(run.config, data=replace(run.config.data, mesh=source)) if source else run.config
    try:
        files = inputs.of_files(setup.input_files(config), resume.source_folder(config), run.inputs)
        target = setup.load_target(config)
    except InputError:
        return None
    if inputs.differences(run.inputs, files) or not isinstance(target, Mesh):
        return None
    return setup.solid_of(target) if target.normalization == run.normalization else None
