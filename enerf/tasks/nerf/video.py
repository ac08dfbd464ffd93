"""Videos along camera paths."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from enerf.core import images
from enerf.datasets.scenes import camera_models, camera_path_files, camera_paths
from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.engine import distributed
from enerf.rendering import sampling
from enerf.rendering.render import Picture
from enerf.reporting import video
from enerf.tasks.nerf import setup, views
from enerf.tasks.nerf.planes import PlanesRenderer
from enerf.tasks.nerf.setup import Run

FRAMES, FPS = 120, 30.0  # of videos during and after training


def _shades(depth: Float[Tensor, "h w"], run: Run) -> tuple[Float64[np.ndarray, "h w"], float, float]:
    """Depths, near and far to be drawn as colors: in the spacing of the samples, so that a distant background fits."""
    ends, knee = torch.tensor([run.scene.near, run.scene.far], dtype=torch.float64), 0.0
    if run.config.render.spacing == "piecewise":
        knee = setup.sampling_config(run.config, run.scene).knee
    if knee > 0:
        depth, ends = 1 - sampling.complement(depth.clamp(min=0), knee), 1 - sampling.complement(ends, knee)
    near, far = ends.tolist()
    return depth.numpy(), near, far


def image_of(run: Run, picture: Picture, depth: bool) -> UInt8[np.ndarray, "h w 3"]:
    """A frame as bytes: the colors of a picture, or false colors of its depth, where light that passes is far."""
    if depth:
        beyond = (1 - picture.opacity.cpu().double()).clamp(min=0) * run.scene.far
        return video.colorize_depth(*_shades(picture.depth.cpu().double() + beyond, run))
    return images.to_uint8(picture.rgb.cpu())


def write_video(
    run: Run,
    path: Path,
    kind: str,
    frames: int,
    fps: float,
    *,
    factor: float = 1.0,
    depth: bool = False,
    keep_pngs: bool = False,
    fast: PlanesRenderer | None = None,
) -> Path:
    """Render a camera path to an mp4 file; frames of an interrupted call are reused. Returns the path of the file.

    ``fast`` renders planes in the place of the field.
    """
    poses = camera_paths.camera_path(run.present_scene, kind, frames)
    camera = camera_models.resized(run.scene.camera, factor)
    renderer = fast or views.renderer_of(run, run.config.render.skip)

    def frame(i: int) -> Any:
        return image_of(run, renderer.picture(run.scene, poses[i], camera), depth)

    settings = {**_trained(run), "path": kind, "frames": len(poses), "factor": factor, "depth": depth, **_of(fast)}
    return written(path, frame, len(poses), fps, settings, keep_pngs)


def written(
    path: Path,
    frame: Callable[[int], np.ndarray],
    n: int,
    fps: float | int,
    settings: dict[str, Any],
    keep_pngs: bool = False,
) -> Path:
    """Render ``n`` frames and encode them as an mp4; returns its path.

    ``settings`` is all that the frames depend on, as JSON values: frames left by a call with other settings are
    rendered again. Frames are stored in ``<name>_frames/``, which is deleted at the end unless ``keep_pngs``. Several
    processes share the frames, and the first one writes.

    Raises
    ------
    InputError
        If that folder contains other files, or cannot be written.
    """
    team = distributed.current()
    missing = team.of_first(partial(video.missing_frames, path, n, settings))
    with closing(team.map(frame, missing)) as frames:
        for i, image in zip(video.shown(path, n, missing), frames, strict=True):
            if team.is_first:
                video.write_frame(path, i, image)
    return team.of_first(partial(video.encode, path, n, fps, keep_pngs=keep_pngs))


def write_path(
    run: Run,
    path: Path,
    cameras: CameraPath,
    fps: float | int,
    *,
    factor: float | int = 1.0,
    depth: bool = False,
    keep_pngs: bool = False,
    fast: PlanesRenderer | None = None,
    frame: Callable[[int], np.ndarray] | None = None,
) -> Path:
    """Render the cameras of a path to an mp4 file, as ``write_video``; ``frame`` renders one in another way."""
    if frame is None:
        frame = _path_frame(run, cameras, factor, depth, fast)
    n = len(cameras.poses)
    known = {**_trained(run), **_of(fast)}
    settings = {**known, "path": _digest(cameras), "frames": n, "factor": factor, "depth": depth}
    return written(path, frame, n, fps, settings, keep_pngs)


def _path_frame(
    run: Run, cameras: CameraPath, factor: float | int, depth: bool, fast: PlanesRenderer | None = None
) -> Callable[[int], np.ndarray]:
    """Function that renders one camera of a path, by planes if they are given."""
    poses = scene_poses(run, cameras)
    picture = fast.picture if fast else views.renderer_of(run, run.config.render.skip).free_picture

    def frame(i: int) -> np.ndarray:
        camera = camera_models.resized(cameras.camera(i), factor)
        return image_of(run, picture(run.scene, poses[i], camera), depth)

    return frame


def scene_poses(run: Run, cameras: CameraPath) -> Float[Tensor, "f 3 4"]:
    """Poses of a path's frames in the scene coordinates of a run."""
    found = camera_path_files.to_scene(run.scene.world_to_scene.double().cpu().numpy(), cameras)
    return torch.from_numpy(found).to(run.scene.c2w)


def _trained(run: Run) -> dict[str, Any]:
    """Step and seconds, which tell runs apart that were trained in the same folder."""
    return {"step": run.state.step, "seconds": run.state.seconds}


def _of(fast: PlanesRenderer | None) -> dict[str, Any]:
    """What tells planes apart."""
    return {} if fast is None else {"planes": fast.stack.metadata}


def _digest(cameras: CameraPath) -> str:
    """Hash of a path's cameras."""
    values = np.concatenate([cameras.poses.ravel(), cameras.fovs, [cameras.width, cameras.height]])
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]
