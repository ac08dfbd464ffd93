"""Videos along camera paths."""

from pathlib import Path
from typing import Any

from enerf.core import images
from enerf.datasets.scenes import camera_models, camera_paths
from enerf.reporting import video
from enerf.tasks.nerf import views
from enerf.tasks.nerf.setup import Run

FRAMES, FPS = 120, 30.0  # of videos during and after training


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
) -> Path:
    """Render a camera path to an mp4 file; frames of an interrupted call are reused. Returns the path of the file."""
    poses = camera_paths.camera_path(run.scene, kind, frames)
    camera = camera_models.resized(run.scene.camera, factor)
    renderer = views.renderer_of(run, run.config.render.skip)

    def frame(i: int) -> Any:
        picture = renderer.picture(run.scene, poses[i], camera)
        if depth:
            return video.colorize_depth(picture.depth.cpu().double().numpy(), run.scene.near, run.scene.far)
        return images.to_uint8(picture.rgb.cpu())

    # step and seconds tell runs apart that were trained in the same folder
    trained = {"step": run.state.step, "seconds": run.state.seconds}
    settings = {**trained, "path": kind, "frames": len(poses), "factor": factor, "depth": depth}
    return video.write(path, frame, len(poses), fps, settings, keep_pngs=keep_pngs)
