"""Controls of camera paths: keyframes, preview, files, video. All browsers share one path."""

import logging
import re
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from enerf.core.errors import InputError, shown
from enerf.datasets.scenes import camera_path_files, coordinates, keyframes
from enerf.datasets.scenes.camera_path_files import CameraPath
from enerf.datasets.scenes.keyframes import Keyframe
from enerf.viewer import controls, poses, viser_server
from enerf.viewer.scheduler import Scheduler
from enerf.viewer.sources import FieldSource, SplitSource

log = logging.getLogger("enerf")

KEY_COLOR, LINE_COLOR = (80, 230, 120), (80, 230, 120)
MOST_KEYFRAMES, MOST_SECONDS = 500, 600.0
PREVIEW_STEP = 0.1  # seconds between two cameras of a preview
NAME = re.compile(r"\w[\w .-]{0,60}\Z")


class StoppedByUser(Exception):
    """Raised in the thread that renders a video when somebody stops it; the frames rendered so far are kept."""


class PathPanel:
    """The path's keyframes, in scene coordinates, and the controls that change them."""

    def __init__(
        self,
        viser: Any,
        source: FieldSource | SplitSource,
        folder: Path,
        scheduler: Scheduler,
        recorder: Callable[..., Path] | None,
        say: Callable[[str], None],
    ) -> None:
        """Add the controls; parameters as of ``window.Viewer``; ``say`` shows a text to all browsers."""
        self._viser, self._source, self._folder, self._scheduler = viser, source, folder, scheduler
        self._recorder, self._say = recorder, say
        self.keyframes: list[Keyframe] = []
        self._lock = threading.RLock()
        self._drawn: list[Any] = []
        self._video: threading.Thread | None = None
        self._playing: dict[int, object] = {}  # browser -> what its present playing is known by
        self._is_stopped = False
        self._size = self._own_size()
        self._add_controls()

    def _add_controls(self) -> None:
        gui = self._viser.gui
        with gui.add_folder("Camera path", order=2):
            buttons = {name: gui.add_button(name) for name in ("Add keyframe", "Remove last", "Clear")}
            self._seconds = gui.add_number("Seconds", 4.0, min=0.1, max=MOST_SECONDS, step=0.1)
            self._fps = gui.add_number("Frames per second", 24, min=1, max=120, step=1)
            self._closed = gui.add_checkbox("Loop", False)
            self._preview = gui.add_slider("Preview", 0.0, 1.0, 0.005, 0.0)
            buttons["Play"] = gui.add_button("Play")
            self._name = gui.add_text("Name", "camera_path")
            buttons |= {name: gui.add_button(name) for name in ("Save", "Load")}
            if self._recorder is not None:
                buttons |= {name: gui.add_button(name) for name in ("Render video", "Stop")}
            self._progress = gui.add_progress_bar(0.0, visible=False)
            self._text = gui.add_markdown("no keyframes")
        actions = {
            **{"Add keyframe": self._add, "Remove last": self._remove, "Clear": self._clear, "Play": self._play},
            **{"Save": self._save, "Load": self._load, "Render video": self._render, "Stop": lambda _: self.stop()},
        }
        for name, button in buttons.items():
            button.on_click(self._guarded(actions[name]))
        self._preview.on_update(self._guarded(self._show))
        for handle in (self._seconds, self._fps, self._closed):
            handle.on_update(lambda _: self._redraw())

    def _guarded(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
        """An action whose errors of the user are shown in the panel."""

        def act(event: Any) -> None:
            try:
                action(event)
            except InputError as error:
                self._tell(str(error))

        return act

    def _own_size(self) -> tuple[int, int]:
        """Width and height of the frames of a new path: those of the scene's camera, made even for videos."""
        camera = self._source.scene.camera
        return max(2, camera.width // 2 * 2), max(2, camera.height // 2 * 2)

    def path(self) -> CameraPath:
        """The path, in the coordinates of the scene's files.

        Raises
        ------
        InputError
            If there are no keyframes.
        """
        with self._lock:
            found = tuple(self.keyframes)
        if not found:
            raise InputError("camera path: found no keyframes, expected at least one")
        scene = self._source.scene
        to_world = np.linalg.inv(scene.world_to_scene.double().cpu().numpy())
        moved = coordinates.transform_poses(to_world, np.stack([each.c2w for each in found]))
        passed = tuple(Keyframe(pose, each.fov) for pose, each in zip(moved, found, strict=True))
        return camera_path_files.through(passed, self._length(), self._rate(), *self._size, closed=self._is_closed())

    def _length(self) -> float:
        return float(controls.within(self._seconds.value, 0.1, MOST_SECONDS, 4.0))

    def _rate(self) -> int:
        return int(controls.within(self._fps.value, 1, 120, 24))

    def _is_closed(self) -> bool:
        return self._closed.value is True

    def _add(self, event: Any) -> None:
        camera = event.client.camera
        c2w = poses.from_viser(camera.wxyz, camera.position).double().numpy()
        with self._lock:
            if len(self.keyframes) >= MOST_KEYFRAMES:
                raise InputError(f"camera path: found {MOST_KEYFRAMES} keyframes, expected no more")
            self.keyframes.append(Keyframe(c2w, float(np.degrees(camera.fov))))
        self._redraw()

    def _remove(self, _: Any) -> None:
        with self._lock:
            self.keyframes[-1:] = []
        self._redraw()

    def _clear(self, _: Any) -> None:
        with self._lock:
            self.keyframes.clear()
            self._size = self._own_size()
        self._redraw()

    def _redraw(self) -> None:
        """Show keyframes and path in the scene."""
        with self._lock:
            for handle in self._drawn:
                handle.remove()
            self._drawn = []
            scene, scale = self._viser.scene, 0.25 * poses.spacing(self._source.scene)
            width, height = self._size
            for i, each in enumerate(self.keyframes):
                wxyz, position = poses.to_viser(each.c2w)
                self._drawn.append(
                    scene.add_camera_frustum(
                        f"/path/{i:03d}",
                        fov=float(np.radians(each.fov)),
                        aspect=width / height,
                        scale=scale,
                        thickness=2.0,
                        thickness_units="screen",
                        color=KEY_COLOR,
                        wxyz=wxyz,
                        position=position,
                    )
                )
            if len(self.keyframes) > 1:
                times = np.linspace(0, 1, min(2000, 20 * len(self.keyframes)))
                along, _ = keyframes.interpolated(self.keyframes, times, closed=self._is_closed())
                centers = along[:, :, 3].astype(np.float32)
                segments = np.stack([centers[:-1], centers[1:]], 1)
                self._drawn.append(
                    scene.add_line_segments("/path/line", segments, LINE_COLOR, thickness=2.0, thickness_units="screen")
                )
            count = len(self.keyframes)
        frames = max(1, round(self._length() * self._rate())) if count else 0
        size = f"{width}×{height}"
        self._tell(f"{count} keyframe{'s' * (count != 1)}, {frames} frames of {size}" if count else "no keyframes")

    def _move(self, client: Any, time_in_path: float) -> None:
        """Move the camera of a browser to the place of a time in [0, 1]."""
        with self._lock:
            found = list(self.keyframes)
        if client is not None and found:
            along, fovs = keyframes.interpolated(found, np.array([time_in_path]), closed=self._is_closed())
            controls.move(client, along[0], float(np.radians(fovs[0])))

    def _show(self, event: Any) -> None:
        """Move the camera of the browser to the preview's place."""
        self._move(event.client, float(controls.within(self._preview.value, 0.0, 1.0, 0.0)))

    def _play(self, event: Any) -> None:
        """Move the camera of the browser along the path; a second time: stop."""
        client, this = event.client, object()
        if client is None or not self.keyframes:
            raise InputError("camera path: found no keyframes, expected at least one")
        if self._playing.pop(client.client_id, None) is not None:
            return
        self._playing[client.client_id] = this
        began, length, passed = time.monotonic(), self._length(), 0.0
        while self._playing.get(client.client_id) is this and passed < 1 and not viser_server.is_gone(client):
            passed = (time.monotonic() - began) / length
            self._move(client, min(passed, 1.0))
            time.sleep(PREVIEW_STEP)
        if self._playing.get(client.client_id) is this:
            del self._playing[client.client_id]

    def _file(self, suffix: str) -> Path:
        """File of the path, by its name: always within the run's folder."""
        name = str(self._name.value)
        if not NAME.match(name):
            raise InputError(f"Name: found {shown(name)}, expected letters, digits, spaces, dots and dashes")
        return self._folder / "camera_paths" / f"{name}{suffix}"

    def _save(self, _: Any) -> None:
        file, saved = self._file(".json"), self.path()
        camera_path_files.write(file, saved, self._source.datadir)
        self._tell(f"saved: {file}")

    def _load(self, _: Any) -> None:
        file = self._file(".json")
        if not file.is_file():
            raise InputError(f"{file}: not found, expected a path that was saved before")
        found = camera_path_files.read(file, self._source.datadir)
        passed = found.keyframes or tuple(
            Keyframe(pose, fov) for pose, fov in zip(found.poses, found.fovs.tolist(), strict=True)
        )
        chosen = np.linspace(0, len(passed) - 1, min(len(passed), MOST_KEYFRAMES)).round().astype(int)
        passed = tuple(passed[i] for i in chosen)
        to_scene = self._source.scene.world_to_scene.double().cpu().numpy()
        moved = coordinates.transform_poses(to_scene, np.stack([each.c2w for each in passed]))
        with self._lock:
            self.keyframes = [Keyframe(pose, each.fov) for pose, each in zip(moved, passed, strict=True)]
            self._size = (found.width, found.height)
        self._seconds.value, self._fps.value = len(found.poses) / found.fps, max(1, round(found.fps))
        self._closed.value = found.closed
        self._redraw()

    def _render(self, _: Any) -> None:
        """Begin the video, or go on with it: frames that exist are not rendered again."""
        with self._lock:
            if self._video is not None and self._video.is_alive():
                raise InputError("a video is being rendered already")
            path, out = self.path(), self._file(".mp4")
            self._is_stopped = False
            self._video = threading.Thread(target=self._write_video, args=(path, out), daemon=True)
            self._video.start()

    def _write_video(self, path: CameraPath, out: Path) -> None:
        assert self._recorder is not None
        n, done, began = len(path.poses), 0, time.monotonic()
        self._progress.value, self._progress.visible = 0.0, True

        def frame(index: int, work: Generator[int, None, Any]) -> Any:
            nonlocal done
            if self._is_stopped:
                raise StoppedByUser
            made = self._scheduler.perform(work)
            done += 1
            seconds = (time.monotonic() - began) / done * (n - 1 - index)
            self._progress.value = 100.0 * (index + 1) / n
            self._tell(f"frame {index + 1} of {n}, {seconds:.0f} s left")
            return made

        try:
            written = self._recorder(path, out, frame)
            self._tell(f"video: {written}")
        except StoppedByUser:
            self._tell("stopped; Render video goes on")
        except Exception as error:  # whatever it is, it is shown where somebody looks
            self._tell(f"the video was not rendered: {error}")
        finally:
            self._progress.visible = False

    def close(self) -> None:
        """Stop a video, and render no other one."""
        self._scheduler.end(StoppedByUser())
        self.stop()

    def stop(self) -> None:
        """Stop a video and wait for its thread; its frames are kept."""
        self._is_stopped = True
        self._scheduler.give_up_tasks(StoppedByUser())
        video = self._video
        if video is not None and video is not threading.current_thread():
            video.join(10)

    def _tell(self, text: str) -> None:
        """Show a text in the panel."""
        self._text.content = controls.plain(text)
