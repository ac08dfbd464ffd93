"""Export of a NeRF run: points on its surfaces, and its cameras in the formats of other programs."""

import logging
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from enerf.core import io
from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_path_files, camera_paths, colmap, conversion, formats, placed_files
from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.datasets.scenes.conversion import ConversionSettings
from enerf.datasets.scenes.coordinates import transform_poses
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.geometry import colored_points
from enerf.tasks.nerf import poses_file, setup, surface_points, video, views
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.surface_points import SurfacePoints

log = logging.getLogger("enerf")
POINTS, PATH = "points.ply", "camera_path.json"
SPARSE = 100_000  # most points in COLMAP's model and beside transforms.json


def export(folder: Path, out: Path, chosen: Any) -> list[Path]:
    """Write the points and cameras of a run to a new folder, as a whole or not at all; return the paths of its parts.

    ``points.ply``; ``transforms.json`` with ``images``, ``masks`` and ``sparse_pc.ply``; ``sparse/0``, a COLMAP model
    of the same images; ``camera_path.json``. All are in the coordinates of the scene's files, with the present poses:
    refined ones, if the run refines them.

    Parameters
    ----------
    folder, out
        Folder of the run, and the new folder.
    chosen
        ``experiments.options.ExportPointsOptions``.

    Raises
    ------
    InputError
        If the run or its scene cannot be read, no ray meets a surface, or the folder exists or cannot be written.
    """
    if os.path.lexists(out):
        raise InputError(f"option --out: found {out}, which exists, expected a new folder")
    run = setup.open_run(folder, chosen.device, chosen.datadir)
    posed = present_cameras(run.config, run.present_scene)
    path = path_of(run, chosen.path, chosen.frames)
    found = surface_points.surface_points(run.present_scene, views.renderer_of(run), chosen.points, chosen.opacity)
    log.info("%s: %d points", folder, len(found.xyz))
    posed = replace(posed, points=_some(found, SPARSE))
    settings = ConversionSettings("transforms", link=chosen.link, write_points=colored_points.write_scene)
    with io.os_errors_as_input_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with io.temporary_path(out) as temporary:
        conversion.convert(posed, temporary, settings)
        colmap.write(temporary / "sparse" / "0", placed_files.placed(_inner_names(posed), temporary))
        camera_path_files.write(temporary / PATH, path)
        colored_points.write(temporary / POINTS, found.xyz, found.rgb, found.normals)
        with io.os_errors_as_input_errors(out):
            os.rename(temporary, out)
    return [out / name for name in (POINTS, "transforms.json", "sparse/0", PATH)]


def present_cameras(config: NerfConfig, scene: Scene) -> PosedImages:
    """Return the photographs of a run's scene as its files describe them, with the poses of ``scene``.

    Views that the run does not use are left out. What cameras alone do not need (bounds, points) is left out.

    Raises
    ------
    InputError
        If a photograph of the run is not in the scene's files any more.
    """
    config = setup.with_format(config)
    posed = formats.posed(config.data.dataset_type, Path(config.data.datadir), setup.scene_settings(config))
    row = {name: i for i, name in enumerate(posed.names)}
    missing = [name for name in scene.image_names if name not in row]
    if missing:
        raise InputError(f"{posed.source} has no image {missing[0]}, which the run was trained with, expected it")
    order = [row[name] for name in scene.image_names]
    picked: dict[str, Any] = {
        name: tuple(values[i] for i in order) if (values := getattr(posed, name)) else values
        for name in ("names", "files", "cameras", "masks", "depths", "radii")
    }
    return replace(
        posed, **picked, c2w=poses_file.world_poses(scene), bounds=None, points=None, test=scene.test, unread=()
    )


def path_of(run: Run, kind: str, frames: int) -> CameraPath:
    """Return a camera path of a run, by default that of its videos, in the coordinates of the scene's files."""
    scene, camera = run.present_scene, run.scene.camera
    poses = camera_paths.camera_path(scene, kind or camera_paths.default_kind(scene), frames).double().cpu().numpy()
    to_world = np.linalg.inv(scene.world_to_scene.double().cpu().numpy())
    fov = math.degrees(2 * math.atan(0.5 * camera.height / camera.fy))
    fovs = np.full(len(poses), fov)
    return CameraPath(transform_poses(to_world, poses), fovs, camera.width, camera.height, video.FPS)


def _inner_names(posed: PosedImages) -> PosedImages:
    """Return the photographs with the names that ``conversion`` gives their copies."""
    return conversion.with_inner_names(posed, conversion.TARGETS["transforms"])


def _some(found: SurfacePoints, most: int) -> Points:
    """Return at most a number of points, evenly spaced in their order, without what views see them."""
    step = max(1, math.ceil(len(found.xyz) / most))
    none = np.zeros(0, np.int64)
    return Points(found.xyz[::step], found.rgb[::step], none, none)
