"""What a mesh is extracted from: a scalar field, its box, its iso value and the map to the coordinates of the files."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from enerf.core.types import ScalarField
from enerf.geometry.isosurface.sample_grid import Inside
from enerf.geometry.preview import cameras
from enerf.geometry.preview.cameras import Up, View

Points = Float64[np.ndarray, "n 3"]
Box = Float64[np.ndarray, "2 3"]


def turned_around(vertices: Points, size: int, up: Up = "y") -> View:
    """A view of the whole from the front and a little above."""
    view = View((0.0, 0.0, 0.0), 1.0, width=size, height=size, up=up)
    return cameras.around(vertices.min(0), vertices.max(0), view=view)


@dataclass(frozen=True)
class Subject:
    """What a mesh is extracted from.

    Attributes
    ----------
    name
        What it is of.
    field
        Points in its coordinates to values, weights baked and held; with the dtype and on the device of ``box``.
    box
        Where the surface is looked for, in the field's coordinates.
    level, inside, slope
        As in ``marching.extract``.
    why
        A sentence about the level, and what else the user should know.
    points_at_once
        Most points that the field likes to be asked at together.
    onto, into
        The field's coordinates to those of the user's files (the world), and back.
    colors
        World points and normals to colours in [0, 1].
    seen
        World points to the number of training cameras that have them in their picture.
    bounds
        The box in the world that was asked for; what lies beyond is dropped.
    frame
        A similarity that stands the world upright for pictures, and
    view
        the first view of vertices there, of a height in pixels.
    swing
        Degrees by which pictures go to each side; 0: all around.
    """

    name: str
    field: ScalarField
    box: Float[Tensor, "2 3"]
    level: float
    inside: Inside
    why: str = ""
    slope: float | None = None
    points_at_once: int = 1 << 16
    onto: Callable[[Points], Points] = np.copy
    into: Callable[[Points], Points] = np.copy
    colors: Callable[[Points, Points], Points] | None = None
    seen: Callable[[Points], np.ndarray] | None = None
    bounds: Box | None = None
    frame: Float64[np.ndarray, "4 4"] = dataclasses.field(default_factory=lambda: np.eye(4))
    view: Callable[[Points, int], View] = turned_around
    swing: float | int = 0.0


@dataclass(frozen=True)
class MeshSourceSettings:
    """How the field of a run is opened for extraction.

    Attributes
    ----------
    level
        Iso value; None: chosen by the task's rule.
    box
        Where the surface is searched, in the coordinates of the user's files; None: everywhere.
    device, precision
        As the options say.
    source
        New place of the run's data, if it has moved; else empty.
    """

    level: float | None = None
    box: Box | None = None
    device: str = "auto"
    precision: str = "fp32"
    source: str = ""
