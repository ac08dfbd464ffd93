"""Videos along camera paths."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from enerf.core import images
from enerf.datasets.scenes import camera_models, camera_paths
from enerf.rendering import sampling
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
        picture = renderer.picture(run.scene, poses[i], camera)
        if depth:
            return video.colorize_depth(*_shades(picture.depth.cpu().double(), run))
        return images.to_uint8(picture.rgb.cpu())

    # step and seconds tell runs apart that were trained in the same folder
    trained = {"step": run.state.step, "seconds": run.state.seconds}
    settings = {**trained, "path": kind, "frames": len(poses), "factor": factor, "depth": depth}
    if fast is not None:
        settings["planes"] = fast.stack.metadata
    return video.write(path, frame, len(poses), fps, settings, keep_pngs=keep_pngs)
