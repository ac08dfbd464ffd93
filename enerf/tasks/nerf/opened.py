"""Views of a finished run: single images and videos."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, camera_paths
from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.render import Picture
from enerf.tasks.nerf import planes, setup, video, views
from enerf.tasks.nerf.planes import PlanesRenderer
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer


def open_views(folder: Path, device: str = "auto", source: str = "") -> "OpenedViews":
    """Open a finished run for rendering; ``source`` is the new path of its scene, or empty.

    Raises
    ------
    InputError
        If the folder is not a NeRF run, or its scene is missing.
    """
    return OpenedViews(setup.open_run(folder, device, source), folder)


class OpenedViews:
    """A finished run that renders images and videos."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder

    @property
    def scene(self) -> Scene:
        """The scene: camera, poses, images, train and test indices."""
        return self.run.present_scene

    @cached_property
    def _renderer(self) -> Renderer:
        return views.renderer_of(self.run)

    def render(self, pose: Float[Tensor, "3 4"], camera: Camera | None = None, factor: float = 1.0) -> Picture:
        """Render one view at 1/factor of the camera's size (default: that of the scene); the result is on the CPU."""
        resized = camera_models.resized(camera or self.scene.camera, factor)
        picture = self._renderer.picture(self.scene, pose.to(self.run.device, torch.float32), resized)
        return Picture(picture.rgb.cpu(), picture.depth.cpu(), picture.opacity.cpu())

    def write_video(
        self,
        out: Path | None,
        path: str | CameraPath | None,
        frames: int,
        fps: float | None,
        *,
        factor: float = 1.0,
        depth: bool = False,
        keep_pngs: bool = False,
        fast: bool = False,
        exact: bool = False,
    ) -> Path:
        """Render a camera path (default: by the kind of scene) to an mp4 and return its path.

        The default of ``out`` is ``video_PATH.mp4`` in the run's folder, ``video_path.mp4`` for the cameras of a file.
        The default of ``fps`` is that of the file, or 30. ``frames`` does not count for the cameras of a file. With
        ``fast`` the run's baked planes are rendered in the place of the field: the tuned ones, if there are any;
        without any they are baked first. With ``exact`` every pixel is rendered, whatever the run's option
        ``interpolate`` says.

        Raises
        ------
        InputError
            With ``fast``, if the scene is not forward-facing.
        """
        drawn = None
        if fast:
            drawn = PlanesRenderer(planes.best_stack(self.run, self.folder), self.run.config.data.pixel_centers)
        appearance: dict[str, Any] = {"factor": factor, "depth": depth, "keep_pngs": keep_pngs, "fast": drawn}
        appearance["exact"] = exact
        suffix = f"{'_depth' if depth else ''}{'_fast' if fast else ''}"
        if isinstance(path, CameraPath):
            target = out or self.folder / f"video_path{suffix}.mp4"
            return video.write_path(self.run, target, path, fps or path.fps, **appearance)
        kind = path or camera_paths.default_kind(self.scene)
        target = out or self.folder / f"video_{kind}{suffix}.mp4"
        return video.write_video(self.run, target, kind, frames, fps or video.FPS, **appearance)
