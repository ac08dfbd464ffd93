"""The refined poses of a run as ``poses_refined.json``, in the format of ``transforms.json``."""

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from enerf.core.errors import InputError
from enerf.datasets.scenes import transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.tasks.nerf.setup import Run

log = logging.getLogger("enerf")
NAME = "poses_refined.json"


def write(run: Run) -> Path | None:
    """Write the present poses of all views in world coordinates, if the run refines poses; return the file if written.

    Names are those of the scene's images; cameras are of the size at which the run reads them. Test views have their
    given poses, aligned to the refined training poses. If the format cannot express a camera, or the file cannot be
    written, a warning says so: the run is evaluated all the same.
    """
    if run.fields.poses is None:
        return None
    scene, file = run.present_scene, run.config.folder / NAME
    posed = PosedImages(
        source=file,
        names=scene.image_names,
        files=tuple(run.config.folder / name for name in scene.image_names),
        cameras=tuple(scene.cameras.camera(view) for view in range(len(scene.c2w))),
        c2w=world_poses(scene),
        test=scene.test,
    )
    try:
        transforms_writer.write(file, posed, lossy=True)
    except InputError as error:
        log.warning("the refined poses are not stored: %s", error)
        return None
    return file


def world_poses(scene: Scene) -> Float64[np.ndarray, "n 3 4"]:
    """Camera-to-world poses of a scene, OpenGL axes, in the coordinates of the scene's files."""
    to_world = np.linalg.inv(scene.world_to_scene.double().cpu().numpy())
    scale = np.cbrt(np.linalg.det(to_world[:3, :3]))
    c2w = scene.c2w.double().cpu().numpy()
    centers = c2w[:, :, 3] @ to_world[:3, :3].T + to_world[:3, 3]
    return np.concatenate([to_world[:3, :3] / scale @ c2w[:, :, :3], centers[:, :, None]], axis=-1)
