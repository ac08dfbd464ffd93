"""NeRF runs as sources of the viewer, and their videos."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.tasks.nerf import planes, setup, video, views
from enerf.tasks.nerf.opened import OpenedViews
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer
from enerf.viewer.sources import FastRenderer, FieldSource, Rendering

# index of a frame, its rendering -> picture
Frame = Callable[[int, Rendering], Any]


def source_of(run: Run, name: str, renderer: Callable[[], Renderer] | None = None) -> FieldSource:
    """A run as a source; ``renderer`` returns the present one of a run in training.

    While the camera moves, a finished run is shown by the baked planes in its folder, if there are any.
    """
    fast = None
    if renderer is None:
        made = views.renderer_of(run, run.config.render.skip)
        fast = _by_planes(run)

        def renderer() -> Renderer:
            return made

    knee, datadir = setup.sampling_config(run.config, run.scene).knee, Path(run.config.data.datadir)
    return FieldSource(name, run.present_scene, renderer, knee, fast, datadir)


def _by_planes(run: Run) -> FastRenderer | None:
    """Renderer by the planes that ``enerf bake`` made of a run's last checkpoint; None without."""
    stack = planes.stored_stack(run, run.config.folder) if run.scene.ndc else None
    if stack is None:
        return None
    made, scene = planes.PlanesRenderer(stack, run.config.data.pixel_centers), run.present_scene
    return lambda c2w, camera: made.picture(scene, c2w, camera)


def recorder(opened: OpenedViews, source: FieldSource) -> Callable[[CameraPath, Path, Frame], Path]:
    """Function that renders a camera path to a video; frames of an interrupted one are reused.

    It is given the function that performs the rendering of a frame.
    """
    run = opened.run

    def record(path: CameraPath, out: Path, perform: Frame) -> Path:
        found = video.scene_poses(run, path)

        def frame(index: int) -> np.ndarray:
            work: Generator[int, None, Any] = source.picture(found[index], path.camera(index))
            return video.image_of(run, perform(index, work), False)

        return video.write_path(run, out, path, path.fps, frame=frame)

    return record
