"""OBJ files: vertices and polygons.

Read as most programs write them: comments anywhere, any line ends, continued lines, indices relative to the last
vertex, colors after the coordinates. Materials, normals and texture coordinates are not needed and not read.

Source: Wavefront, Object files (.obj), Advanced Visualizer manual (1995), appendix B1.
"""

import logging
import re

import numpy as np
from jaxtyping import Float64

from enerf.core.errors import InputError
from enerf.geometry import text
from enerf.geometry.triangulate import Polygons

log = logging.getLogger("enerf")

_FREE_FORM = {"surf", "curv2", "curv"}


def parse(data: bytes, source: str) -> tuple[Float64[np.ndarray, "v 3"], Polygons]:
    """Vertices and polygons of the text of an OBJ file; indices may be out of range.

    Raises
    ------
    ValueError
        If it is not text, or a line cannot be parsed.
    InputError
        If a face names vertex 0, or a relative index reaches before the first vertex.
    """
    vertices: list[str] = []
    faces: list[str] = []
    before: list[int] = []  # number of vertices before each face
    free_form = False
    for line in _lines(data):
        key, _, rest = line.partition(" ")
        if key == "v":
            vertices.append(rest)
        elif key == "f":
            faces.append(rest)
            before.append(len(vertices))
        elif key in _FREE_FORM:
            free_form = True
    if free_form:
        log.warning("%s: its free-form curves and surfaces are not read, only its polygons", source)
    return text.coordinates(vertices), _polygons(faces, before, source)


def _lines(data: bytes) -> list[str]:
    """Lines without comments, continued ones joined."""
    content = text.decoded(data)
    if "#" in content:
        content = re.sub("#[^\n]*", "", content)
    if "\\" in content:
        content = re.sub(r"\\ *\n", " ", content)
    return [line.strip() for line in content.split("\n")]


def _polygons(faces: list[str], before: list[int], source: str) -> Polygons:
    """Polygons of the corner lists of faces: ``v``, ``v/vt``, ``v//vn`` or ``v/vt/vn`` each."""
    joined = "\n".join(faces)
    if "/" in joined:
        joined = re.sub(r"/[^ \n]*", "", joined)
    counts = np.array([len(line.split()) for line in joined.split("\n")] if faces else [], np.int64)
    corners = text.numbers(joined, np.int64)
    if (corners == 0).any():
        raise InputError(f"{source}: a face names vertex 0, expected numbers from 1, as OBJ files count")
    last = np.repeat(np.array(before, np.int64), counts)
    if (corners < -last).any():
        bad = int(corners[corners < -last][0])
        raise InputError(f"{source}: a face names vertex {bad}, expected relative numbers to vertices before it")
    return Polygons(np.where(corners < 0, corners + last, corners - 1), counts)
