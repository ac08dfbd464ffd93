"""Picture files of a mesh: views from several sides, and a turntable video."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from enerf.core import images
from enerf.core.progress import progress_bar
from enerf.geometry.preview import cameras
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene

FPS = 30


def sides(view: View, swing: float | int = 0.0) -> dict[str, View]:
    """Named views from all sides, or from at most ``swing`` degrees to each side if ``swing`` is not 0."""
    step = swing or 90.0
    views = {"front": view, "right": _moved(view, step), "left": _moved(view, -step)}
    if not swing:
        views["back"] = _moved(view, 180.0)
    return {**views, "above": _moved(view, 0.0, min(step, 60.0))}


def _moved(view: View, azimuth: float, elevation: float = 0.0) -> View:
    return dataclasses.replace(view, azimuth=view.azimuth + azimuth, elevation=view.elevation + elevation)


def write(folder: Path, mesh: MeshScene, view: View, *, swing: float | int = 0.0, frames: int = 90) -> list[Path]:
    """Write a picture per side (``front.png`` …) and ``turntable.mp4`` unless ``frames`` is 0; returns the paths.

    Raises
    ------
    InputError
        If the folder cannot be written to, or the encoder is missing.
    """
    written = []
    for name, one in sides(view, swing).items():
        written.append(folder / f"{name}.png")
        images.write_png(written[-1], mesh.picture(one))
    if frames:
        path = cameras.swing(view, frames, swing) if swing else cameras.turn(view, frames)
        written.append(folder / "turntable.mp4")
        images.write_mp4(written[-1], _frames(mesh, path), FPS)
    return written


def _frames(mesh: MeshScene, path: list[View]) -> Iterator[np.ndarray]:
    """The pictures of a camera path."""
    for view in progress_bar(None, "turntable", "frame", iterable=path):
        yield mesh.picture(view)
