"""The controls of one browser: mode, resolution, crop box, photographs, line between two runs.

What a browser sends is checked: a value may be anything.
"""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from enerf.datasets.scenes.scene import Scene
from enerf.viewer import modes, poses, viser_server
from enerf.viewer.sources import FieldSource, SplitSource, View

LEAST, MOST = 64, 2016  # longest side of exact pictures
AXES = ("x", "y", "z")
BOX_COLOR = (255, 220, 60)
EDGES = [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
Box = Float[np.ndarray, "2 3"]


class Controls:
    """Controls of a browser, and the view that they and its camera describe."""

    def __init__(self, client: Any, source: FieldSource | SplitSource, size: int, changed: Callable[[], None]) -> None:
        """Add the controls; ``changed`` is called whenever one of them has moved."""
        self._client, self._changed = client, changed
        self._limits = limits(source.scene)
        gui = client.gui
        with gui.add_folder("View", order=0):
            self._mode = gui.add_dropdown("Mode", modes.MODES, initial_value=modes.COLOR)
            self._blend = gui.add_slider(
                "Photograph", 0.0, 1.0, 0.05, 0.5, visible=False, hint="share of the photograph"
            )
            self._split = gui.add_slider(
                "Split", 0.0, 1.0, 0.01, 0.5, visible=isinstance(source, SplitSource), hint=source.name
            )
            self._size = gui.add_slider("Resolution", LEAST, MOST, 1, min(max(size, LEAST), MOST))
            self._occluding = gui.add_checkbox("Occlusion", True, hint="cameras behind the picture are hidden")
            self._cropped = gui.add_checkbox("Crop", False)
            self._ranges = [
                gui.add_multi_slider(axis, low, high, (high - low) / 200, (low, high), visible=False)
                for axis, (low, high) in zip(AXES, self._limits.T.tolist(), strict=True)
            ]
            self._status = gui.add_markdown("")
        self._add_visit(source.scene)
        handles = (self._mode, self._blend, self._split, self._size, self._occluding, self._cropped, *self._ranges)
        for handle in handles:
            handle.on_update(self._update)
        self._outline: Any = None
        self._updating = threading.Lock()  # each update is in a thread of its own

    def _add_visit(self, scene: Scene) -> None:
        """Add the control that moves the camera to a photograph's."""
        gui = self._client.gui
        with gui.add_folder("Photographs", order=1, expand_by_default=False):
            number = gui.add_number("Number", 0, min=0, max=len(scene.c2w) - 1, step=1)
            go = gui.add_button("Go there")

        @go.on_click
        def _(_: Any) -> None:
            view = int(within(number.value, 0, len(scene.c2w) - 1, 0))
            camera = scene.cameras.camera(view)
            fov = 2 * math.atan(0.5 * camera.height / camera.fy)
            move(self._client, scene.c2w[view].double().cpu().numpy(), fov)

    def view(self) -> View:
        """What the browser is to show."""
        camera = self._client.camera
        c2w = poses.from_viser(camera.wxyz, camera.position)
        aspect = within(camera.image_width / max(camera.image_height, 1), 0.1, 10.0, 1.0)
        mode = self._mode.value if self._mode.value in modes.MODES else modes.COLOR
        size = int(within(self._size.value, LEAST, MOST, LEAST))
        box = self._box() if self._cropped.value is True else None
        shares = [within(each.value, 0.0, 1.0, 0.5) for each in (self._blend, self._split)]
        return View(c2w, within(camera.fov, 0.01, 3.1, 1.0), aspect, mode, shares[0], box, shares[1], size)

    @property
    def is_occluding(self) -> bool:
        """Whether the picture hides what is behind it."""
        return self._occluding.value is True

    def show_status(self, text: str) -> None:
        """Show a text below the controls."""
        self._status.content = plain(text)

    def _box(self) -> Box:
        """The crop box that the sliders describe."""
        ends = []
        for slider, (low, high) in zip(self._ranges, self._limits.T.tolist(), strict=True):
            values = list(slider.value)[:2] if isinstance(slider.value, (tuple, list)) else []
            first, last = (within(value, low, high, low) for value in (*values, low, high)[:2])
            ends.append((min(first, last), max(first, last)))
        return np.array(ends).T

    def _update(self, _: Any) -> None:
        """Show the controls that apply now, and render again."""
        with self._updating, viser_server.sending(self._client):
            self._blend.visible = self._mode.value == modes.BLEND
            cropped = self._cropped.value is True
            for slider in self._ranges:
                slider.visible = cropped
            if self._outline is not None:
                self._outline.remove()
                self._outline = None
            if cropped:
                corners = np.array([[self._box()[(i >> k) & 1, k] for k in range(3)] for i in range(8)])
                self._outline = self._client.scene.add_line_segments(
                    "/crop",
                    np.stack([corners[list(edge)] for edge in EDGES]).astype(np.float32),
                    BOX_COLOR,
                    thickness=2.0,
                    thickness_units="screen",
                )
        self._changed()


def limits(scene: Scene) -> Box:
    """Box that contains what the training cameras see, or the part of it that sliders can handle, in scene coordinates.

    Distant backgrounds are cut off at ten times the median distance between cameras and the middle of what they see.
    """
    c2w = scene.c2w[list(scene.train)].double().cpu().numpy()
    target = poses.focus(scene)
    reach = max(float(np.linalg.norm(c2w[:, :, 3] - target, axis=-1).mean()), poses.spacing(scene))
    if not scene.forward_facing:
        return np.stack([target - 1.5 * reach, target + 1.5 * reach])
    bounds = scene.bounds.double().cpu().numpy()
    far = min(float(bounds.max()), 10 * reach)
    camera = scene.camera
    across = far * np.array([0.5 * camera.width / camera.fx, 0.5 * camera.height / camera.fy, 0.0])
    corners = np.concatenate(
        [
            c2w[:, :, 3],
            *(c2w @ np.array([x, y, -far, 1.0]) for x in (-across[0], across[0]) for y in (-across[1], across[1])),
        ]
    )
    return np.stack([corners.min(0), corners.max(0)])


def move(client: Any, c2w: np.ndarray, fov: float | int) -> None:
    """Move a browser's camera to a pose (OpenGL axes) and a vertical field of view in radians."""
    if viser_server.is_gone(client):
        return
    camera = client.camera
    distance = float(np.linalg.norm(camera.look_at - camera.position)) or 1.0
    with viser_server.sending(client), client.atomic():
        camera.fov = fov
        camera.position = c2w[:, 3]
        camera.look_at = c2w[:, 3] - distance * c2w[:, 2]
        camera.up_direction = c2w[:, 1]


def plain(text: str) -> str:
    """A text as Markdown that shows it unchanged: names may have characters that Markdown, HTML or MDX interpret."""
    return (
        "<small>"
        + "".join(each if each.isalnum() or each in " ,:/×" else f"&#{ord(each)};" for each in text)
        + "</small>"
    )


def within(value: Any, low: float | int, high: float | int, absent: float | int) -> float | int:
    """A number that a browser has sent, within limits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return absent
    return min(max(float(value), low), high)
