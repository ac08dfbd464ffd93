"""The field of a shape run as a mesh source."""

from pathlib import Path

import numpy as np
import torch

from enerf.core.errors import InputError
from enerf.geometry.isosurface.source import MeshSource, MeshSourceSettings
from enerf.tasks.shape import setup


def mesh_source(folder: Path, settings: MeshSourceSettings) -> MeshSource:
    """The occupancy logits or the signed distance of a shape; its box is [−1, 1]³, or what is asked for of it.

    No slope is claimed of a learned distance.

    Raises
    ------
    InputError
        If the run cannot be opened, or the box lies elsewhere.
    """
    run = setup.open_field(folder, settings.device, settings.precision)
    box, level = settings.box, 0.0 if settings.level is None else settings.level
    run.field.requires_grad_(False)
    way, where = run.normalisation, np.array([[-1.0] * 3, [1.0] * 3])
    if box is not None:
        asked = way.to_box(box)
        where = np.array([np.maximum(asked[0], -1), np.minimum(asked[1], 1)])
        if not (where[0] < where[1]).all():
            low, high = way.to_file(np.array([[-1.0] * 3, [1.0] * 3])).tolist()
            raise InputError(f"option --box: found {box.ravel().tolist()}, expected a box within {low} and {high}")
    logits = run.config.data.target == "occupancy"
    told = "logit 0 is one chance in two" if logits else "distance 0 is the surface"
    return MeshSource(
        name=folder.resolve().name,
        field=run.field,
        box=torch.from_numpy(where).to(run.device, torch.float32),
        iso_value=level,
        inside="above" if logits else "below",
        description=f"level {level:g}; {told}",
        to_world=way.to_file,
        from_world=way.to_box,
        bounds=box,
    )
