"""What a viewer renders: the field of a run, finished or in training, and two runs side by side.

A rendering is a generator that yields the number of rays after each chunk and returns the picture: whoever advances it
decides, chunk by chunk, whether it goes on (see ``scheduler``).
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import coordinates
from enerf.datasets.scenes.scene import Scene
from enerf.rendering import view_rays
from enerf.rendering.render import Picture, in_chunks
from enerf.rendering.view_rays import Box, ViewRays
from enerf.tasks.nerf.views import Renderer
from enerf.viewer import modes
from enerf.viewer.modes import Rendered

CHUNK = 2048  # rays rendered before something else may be
SEAM = 2  # columns beyond the line between two runs that each renders: normals are made of neighboring pixels

Rendering = Generator[int, None, Picture]


@dataclass(frozen=True)
class Drawn:
    """A view as it is shown.

    Attributes
    ----------
    image
        Colors.
    depth
        Depth along the optical axis of what each pixel shows, in scene units of the (first) run; infinite where it
        shows the background.
    """

    image: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]

    @classmethod
    def of(cls, rendered: Rendered, view: "View", unit: float | int = 1.0) -> "Drawn":
        """A rendered view in the mode that is wanted; ``unit`` is the length of the shown depths' unit."""
        depth = view_rays.scene_depth(rendered.scene, rendered.rays, rendered.picture) / unit
        image = modes.shown(rendered, view.mode, view.blend)
        return cls(image, depth.nan_to_num(nan=torch.inf, posinf=torch.inf).float().cpu().numpy())


Drawing = Generator[int, None, Drawn]


@dataclass(frozen=True)
class View:
    """What a browser shows.

    Attributes
    ----------
    c2w
        Pose in the scene coordinates of the first run, OpenGL axes.
    fov
        Vertical field of view in radians.
    aspect
        Width over height.
    mode
        One of ``modes.MODES``.
    blend
        Share of the photograph in the mode that blends it.
    box
        Region that is rendered, in scene coordinates of the first run; None: all.
    split
        Share of the width that shows the first of two runs.
    size
        Longest side of the exact picture in pixels.
    to_box
        Similarity from the scene coordinates of the pose to those of the box.
    """

    c2w: Float[Tensor, "3 4"]
    fov: float | int
    aspect: float | int
    mode: str = modes.COLOR
    blend: float | int = 0.5
    box: Box | None = None
    split: float | int = 0.5
    size: int = 504
    to_box: Float[np.ndarray, "4 4"] | None = None

    def camera(self, size: float | int) -> Camera:
        """Pinhole camera with ``size`` pixels along the longest side of the picture."""
        width = max(2, round(size if self.aspect >= 1 else size * self.aspect))
        height = max(2, round(width / self.aspect))
        focal = 0.5 * height / float(np.tan(0.5 * self.fov))
        return Camera(width, height, focal, focal, 0.5 * width, 0.5 * height)


@runtime_checkable
class FastRenderer(Protocol):
    """A renderer of whole pictures for a moving camera, such as baked planes."""

    def __call__(self, c2w: Float[Tensor, "3 4"], camera: Camera) -> Picture | None:
        """Picture (h, w), depths in the field's t as ``Renderer.picture`` has them; None: not from this pose."""
        ...


@dataclass
class FieldSource:
    """The field of a NeRF run.

    Attributes
    ----------
    name
        Name of the run.
    scene
        Its scene, with present poses.
    renderer
        Function that returns the renderer of the present weights.
    knee
        That of the samples' spacing, 0 without.
    fast
        Renderer for moving cameras, None: the lowest resolution of the field takes its place.
    datadir
        Folder or file of the scene, which says what the coordinates of nerfstudio's camera paths are; None: unknown.
    """

    name: str
    scene: Scene
    renderer: Callable[[], Renderer]
    knee: float | int = 0.0
    fast: FastRenderer | None = None
    datadir: Path | None = None

    def drawn(self, view: View, size: float | int) -> Drawing:
        """A view with ``size`` pixels along the longest side."""
        rendered = yield from self.rendered(view, view.camera(size), None)
        return Drawn.of(rendered, view)

    def rendered(self, view: View, camera: Camera, wanted: Bool[Tensor, " n"] | None) -> Generator[int, None, Rendered]:
        """A rendered view; ``wanted`` are the pixels that are needed, row by row, None: all."""
        renderer, c2w = self.renderer(), view.c2w.to(self.scene.c2w)
        rays = view_rays.of_view(self.scene, camera, c2w, view.box, renderer.pixel_centers, view.to_box)
        if wanted is not None:
            rays = _only(rays, wanted.to(rays.met.device))
        flat = yield from _in_turns(renderer, rays)
        picture = view_rays.assembled(self.scene, rays, flat, camera)
        return Rendered(self.scene, c2w, rays, picture, self.knee)

    def picture(self, c2w: Float[Tensor, "3 4"], camera: Camera) -> Rendering:
        """The picture of a camera at a pose in scene coordinates."""
        renderer = self.renderer()
        rays = view_rays.of_view(self.scene, camera, c2w, pixel_centers=renderer.pixel_centers)
        flat = yield from _in_turns(renderer, rays)
        return view_rays.assembled(self.scene, rays, flat, camera)

    def has_quick(self, view: View) -> bool:
        """Whether ``quick`` may show a view."""
        return self.fast is not None and view.box is None

    def quick(self, view: View, size: float | int, unit: float | int = 1.0) -> Drawn | None:
        """A view by the fast renderer; None if there is none, or not for this view. ``unit`` is as of ``Drawn.of``."""
        if self.fast is None or not self.has_quick(view):
            return None
        camera, c2w = view.camera(size), view.c2w.to(self.scene.c2w)
        picture = self.fast(c2w, camera)
        if picture is None:
            return None
        picture = Picture(*(part.to(c2w.device) for part in (picture.rgb, picture.depth, picture.opacity)))
        rays = view_rays.of_view(self.scene, camera, c2w, pixel_centers=self.renderer().pixel_centers)
        return Drawn.of(Rendered(self.scene, c2w, rays, picture, self.knee), view, unit)


def _only(rays: ViewRays, wanted: Bool[Tensor, " n"]) -> ViewRays:
    """Rays of a picture of which only some pixels are needed."""
    return ViewRays(rays.scene_rays, rays.field_rays[wanted[rays.met]], rays.met & wanted)


def _in_turns(renderer: Renderer, rays: ViewRays) -> Generator[int, None, Picture | None]:
    """Rendering of rays, a chunk at a time; None if there are none."""
    parts: list[Picture] = []
    for start in range(0, len(rays.field_rays), CHUNK):
        part = rays.field_rays[start : start + CHUNK]
        parts.append(in_chunks(renderer.render, part, min(renderer.rays_at_once, CHUNK)))
        yield len(part)
    if not parts:
        return None
    return Picture(*(torch.cat([getattr(each, name) for each in parts]) for name in ("rgb", "depth", "opacity")))


@dataclass
class SplitSource:
    """Two runs of one scene: the first left of a line, the second right of it.

    Each may have scene coordinates of its own; they are mapped by the coordinates of the scene's files.
    """

    first: FieldSource
    second: FieldSource
    _map: Float[np.ndarray, "4 4"] = field(init=False)
    _unit: float = field(init=False)

    def __post_init__(self) -> None:
        """Check that both are of one scene.

        Raises
        ------
        InputError
            If the names of their photographs differ.
        """
        if set(self.first.scene.image_names) != set(self.second.scene.image_names):
            raise InputError(
                f"{self.second.name}: found other photographs than those of {self.first.name}, expected two runs of "
                "one scene"
            )
        to_first, to_second = (each.scene.world_to_scene.double().numpy() for each in (self.first, self.second))
        self._map = to_second @ np.linalg.inv(to_first)
        self._unit = float(np.cbrt(np.linalg.det(self._map[:3, :3])))

    @property
    def name(self) -> str:
        """Names of both."""
        return f"{self.first.name} | {self.second.name}"

    @property
    def scene(self) -> Scene:
        """Scene of the first run."""
        return self.first.scene

    @property
    def datadir(self) -> Path | None:
        """Scene of the first run."""
        return self.first.datadir

    def drawn(self, view: View, size: float | int) -> Drawing:
        """A view, left by the first run and right by the second, with a white line between them."""
        camera, right = view.camera(size), self.mapped(view)
        column, at = _column(view, camera), torch.arange(camera.width)
        wanted = (at < column + SEAM, at >= column - SEAM) if 0 < column < camera.width else (at < column, at >= column)
        first = yield from self.first.rendered(view, camera, wanted[0].repeat(camera.height))
        second = yield from self.second.rendered(right, camera, wanted[1].repeat(camera.height))
        return _beside(Drawn.of(first, view), Drawn.of(second, right, self._unit), column)

    def has_quick(self, view: View) -> bool:
        """Whether ``quick`` may show a view."""
        return self.first.has_quick(view) and self.second.has_quick(view)

    def quick(self, view: View, size: float | int) -> Drawn | None:
        """The same by the fast renderers of both runs; None if one has none."""
        if not self.has_quick(view):
            return None
        first, second = self.first.quick(view, size), self.second.quick(self.mapped(view), size, self._unit)
        if first is None or second is None:
            return None
        return _beside(first, second, _column(view, view.camera(size)))

    def mapped(self, view: View) -> View:
        """The view in the scene coordinates of the second run."""
        pose = coordinates.transform_poses(self._map, view.c2w[None].double().cpu().numpy())[0]
        return replace(view, c2w=torch.from_numpy(pose).float(), to_box=np.linalg.inv(self._map))


def _column(view: View, camera: Camera) -> int:
    """First column of a picture that shows the second of two runs."""
    return round(min(max(view.split, 0.0), 1.0) * camera.width)


def _beside(first: Drawn, second: Drawn, column: int) -> Drawn:
    """One view left of a column, and another from there on; the column between them is white."""
    image, depth = (
        np.concatenate([left[:, :column], right[:, column:]], 1)
        for left, right in ((first.image, second.image), (first.depth, second.depth))
    )
    if 0 < column < image.shape[1]:
        image[:, column] = 255
    return Drawn(image, depth)
