"""The viewer of NeRF runs: what browsers see and control, and the loop that renders for them."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from enerf.core import images
from enerf.datasets.scenes import pixels
from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.datasets.scenes.scene import Scene
from enerf.viewer import path_panel, poses, viser_server
from enerf.viewer.controls import Controls, plain
from enerf.viewer.scheduler import Scheduler, sizes
from enerf.viewer.sources import Drawn, FieldSource, SplitSource, View
from enerf.viewer.viser_server import Server

FIRST_SECONDS = 0.1  # time that the lowest rung may take
FIRST_RAYS = (1024, 16_384)  # least and most rays of the lowest rung
GUESSED_SPEED = 20_000.0  # rays per second, before any was measured
QUICK_SIZE = 252  # longest side of pictures of a fast renderer
QUALITY = (70, 92)  # of JPEG: while moving, exact
FRUSTA, THUMBNAIL = 200, 96  # most cameras that are shown; longest side of their photographs
TRAINING_COLOR, TEST_COLOR = (90, 160, 250), (250, 150, 60)

Source = FieldSource | SplitSource
# path, output file, function from a frame's index to its image -> file
Recorder = Callable[[CameraPath, Path, Callable[[Any, Any], Any]], Path]


@dataclass(frozen=True)
class Look:
    """A view and the sizes of its rungs; the first is by the fast renderer if there is one."""

    view: View
    sizes: Sequence[float | int]


class Viewer:
    """A viewer of one run or of two side by side.

    Attributes
    ----------
    server
        The server, open to browsers.
    scheduler
        Renders for them: whoever calls ``turn`` advances it.
    """

    def __init__(
        self, server: Server, source: Source, folder: Path, *, recorder: Recorder | None = None, size: int = 0
    ) -> None:
        """Show a source.

        Parameters
        ----------
        server
            A new server.
        source
            What is rendered.
        folder
            Folder of the run: camera paths and videos are written there.
        recorder
            Renders a camera path to a video; None: videos are not offered.
        size
            Longest side of exact pictures; 0: that of the scene's photographs, at most 1008.
        """
        self.server, self._source = server, source
        self.scheduler = Scheduler(self._draw, lambda look: len(look.sizes), self._deliver)
        camera = source.scene.camera
        self._size = size or min(1008, max(camera.width, camera.height))
        self._centers = source.scene.c2w[:, :, 3].double().cpu().numpy()
        self._lock = threading.Lock()
        self._controls: dict[int, Controls] = {}
        self._began: dict[int, float] = {}
        self._show_scene()
        self.panel = path_panel.PathPanel(server.viser, source, folder, self.scheduler, recorder, self.message)
        self._status = server.viser.gui.add_markdown("")
        self._status.visible = False
        server.viser.on_client_connect(self._connect)
        server.viser.on_client_disconnect(self._disconnect)

    def run(self) -> None:
        """Render until interrupted."""
        try:
            while True:
                if not self.scheduler.turn():
                    self.scheduler.wait(0.5)
        finally:
            self.close()

    def close(self) -> None:
        """End what is rendered, and the server."""
        self.panel.close()
        self.server.stop()

    def message(self, text: str) -> None:
        """Show a text to all browsers, such as the state of the training."""
        self._status.content, self._status.visible = plain(text), True

    def _show_scene(self) -> None:
        """Set the start of new cameras, and show the cameras of the scene."""
        viser, scene = self.server.viser, self._source.scene
        begin = poses.start(scene)
        viser.scene.set_up_direction(tuple(begin.up.tolist()))
        initial = viser.initial_camera
        initial.position, initial.look_at = tuple(begin.position.tolist()), tuple(begin.look_at.tolist())
        initial.up, initial.fov = tuple(begin.up.tolist()), begin.fov
        initial.near = 0.01 * poses.spacing(scene)
        with viser.gui.add_folder("Scene"):
            cameras = viser.gui.add_checkbox("Cameras", True, hint="training cameras blue, test cameras orange")
            photographs = viser.gui.add_checkbox("Photographs", False, hint="photographs on the cameras' planes")
        frusta = self._add_frusta(scene)

        @cameras.on_update
        def _(_: Any) -> None:
            for frustum, _photograph in frusta:
                frustum.visible = bool(cameras.value)

        @photographs.on_update
        def _(_: Any) -> None:
            for frustum, view in frusta:
                frustum.image = thumbnail(scene, view) if photographs.value else None

    def _add_frusta(self, scene: Scene) -> list[tuple[Any, int]]:
        """Add the frusta of the cameras, or of some of them if there are many; returns each with its view."""
        views = np.unique(np.linspace(0, len(scene.c2w) - 1, min(FRUSTA, len(scene.c2w))).astype(int)).tolist()
        scale, test, found = 0.2 * poses.spacing(scene), set(scene.test), []
        for view in views:
            camera, c2w = scene.cameras.camera(view), scene.c2w[view].double().cpu().numpy()
            wxyz, position = poses.to_viser(c2w)
            frustum = self.server.viser.scene.add_camera_frustum(
                f"/cameras/{view:05d}",
                fov=2 * float(np.arctan(0.5 * camera.height / camera.fy)),
                aspect=camera.width / camera.height,
                scale=scale,
                thickness=1.5,
                thickness_units="screen",
                color=TEST_COLOR if view in test else TRAINING_COLOR,
                wxyz=wxyz,
                position=position,
            )
            found.append((frustum, view))
        return found

    async def _connect(self, client: Any) -> None:
        """Make the controls of a new browser, and render for it; in viser's event loop, as ``_disconnect``."""
        if viser_server.is_gone(client):
            viser_server.forget(self.server, client)
            return
        controls = Controls(client, self._source, self._size, lambda: self._look(client))
        self._controls[client.client_id] = controls

        @client.camera.on_update
        async def _(_: Any) -> None:
            self._look(client)

        self._look(client)

    async def _disconnect(self, client: Any) -> None:
        with self._lock:
            self._controls.pop(client.client_id, None)
            self._began.pop(client.client_id, None)
            self.scheduler.leave(client.client_id)

    def _look(self, client: Any) -> None:
        """Render what a browser shows now."""
        with self._lock:  # a control may be heard of in another thread, after the browser has left
            controls = self._controls.get(client.client_id)
            if controls is None or viser_server.is_gone(client):
                return
            view = controls.view()
            speed = self.scheduler.speed or GUESSED_SPEED
            rungs = list(sizes(float(np.clip(FIRST_SECONDS * speed, *FIRST_RAYS)), view.size, view.aspect))
            if self._source.has_quick(view):  # what follows is not smaller than the first
                rungs = [rungs[0], *(size for size in rungs[1:-1] if size > QUICK_SIZE), *rungs[1:][-1:]]
            self._began[client.client_id] = time.monotonic()
            self.scheduler.look(client.client_id, Look(view, rungs))

    def _draw(self, look: Look, rung: int) -> Any:
        """Rendering of one rung."""
        if rung == 0 and len(look.sizes) > 1:
            return self._first(look)
        return self._source.drawn(look.view, look.sizes[rung])

    def _first(self, look: Look) -> Any:
        """Rendering of the lowest rung: by the fast renderer if it can, else by the field."""
        drawn = self._source.quick(look.view, min(QUICK_SIZE, look.view.size))
        if drawn is not None:
            yield 0
            return drawn
        return (yield from self._source.drawn(look.view, look.sizes[0]))

    def _deliver(self, key: Any, drawn: Drawn, rung: int, is_last: bool) -> None:
        """Send a picture to its browser."""
        client, controls = self.server.viser.get_clients().get(key), self._controls.get(key)
        if client is None or controls is None or viser_server.is_gone(client):
            return
        image = np.ascontiguousarray(drawn.image)
        depth = self._sent_depth(drawn.depth, client.camera.position) if controls.is_occluding else None
        with viser_server.sending(client):
            client.scene.set_background_image(image, "jpeg", jpeg_quality=QUALITY[is_last], depth=depth)
            if is_last:
                began = self._began.pop(key, None)  # None: refreshed, since the field has changed
                after = "" if began is None else f" after {time.monotonic() - began:.1f} s"
                controls.show_status(f"{image.shape[1]}×{image.shape[0]}, exact{after}")

    def _sent_depth(self, depth: Float32[np.ndarray, "h w"], position: np.ndarray) -> np.ndarray | None:
        """Depths by which the page hides cameras behind the picture; None if some are farther than can be sent."""
        if np.linalg.norm(self._centers - position, axis=-1).max() > viser_server.MOST_DEPTH:
            return None
        return viser_server.sent_depth(depth)


def thumbnail(scene: Scene, view: int) -> UInt8[np.ndarray, "h w 3"]:
    """A small copy of a photograph."""
    photograph = images.to_uint8(pixels.view_image(scene, view))
    step = max(1, max(photograph.shape[:2]) // THUMBNAIL)
    return np.ascontiguousarray(photograph[::step, ::step])
