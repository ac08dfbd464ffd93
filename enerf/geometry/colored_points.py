"""Colored point clouds in PLY files: the points of structure from motion."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8

from enerf.core import files
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.datasets.scenes import posed_images
from enerf.geometry import ply

_COLORS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_FRACTIONAL = re.compile(rb"property[ \t]+(float|double)\w*[ \t]+(diffuse_)?r(ed)?[ \t\r\n]")
_MEMORY = 4  # times the file's size: of its content in double precision
Points = Float64[np.ndarray, "n 3"]
Colors = UInt8[np.ndarray, "n 3"]


def read(path: Path) -> tuple[Points, Colors | None]:
    """Positions and colors of the vertices of a PLY file; the colors are None if it has none.

    Colors are whole numbers up to 255; if the header declares them as floating-point numbers of which none is above 1,
    they are multiplied by 255. Points that are not finite are left out.

    Raises
    ------
    InputError
        If the file is missing or damaged, or has no finite vertices.
    """
    try:
        files.require_memory(_MEMORY * files.require_regular(path), str(path))
        data = files.read_bytes(path)
        vertex = ply.parse(data, str(path)).get("vertex", ply.Element({}, {})).columns
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}), expected a PLY file of points") from None
    except (ValueError, IndexError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} cannot be read ({error}), expected a PLY file of points") from None
    if not {"x", "y", "z"} <= vertex.keys():
        raise InputError(f"{path} has no vertices with x, y and z, expected a PLY file of points")
    xyz = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.any():
        raise InputError(f"{path} has no finite vertices, expected a PLY file of points")
    names = next((names for names in _COLORS if set(names) <= vertex.keys()), None)
    if names is None:
        return xyz[finite], None
    rgb = np.nan_to_num(np.stack([vertex[name] for name in names], axis=1)[finite])
    are_fractions = _FRACTIONAL.search(data, 0, data.find(b"end_header")) is not None and rgb.max() <= 1
    return xyz[finite], np.clip(np.round(rgb * 255 if are_fractions else rgb), 0, 255).astype(np.uint8)


def read_scene(path: Path) -> posed_images.Points:
    """Points of a scene in a PLY file, which does not say what views see them; raises as ``read``."""
    none = np.zeros(0, np.int64)
    return posed_images.Points(*read(path), none, none)


def write_scene(path: Path, points: posed_images.Points) -> None:
    """Write the points of a scene, without what views see them; raises as ``write``."""
    write(path, points.xyz, points.rgb)


def write(path: Path, xyz: Points, rgb: Colors | None, normals: Points | None = None) -> None:
    """Write points as a binary PLY file, atomically: positions in double precision, normals in single precision.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    color = [] if rgb is None else ["red", "green", "blue"]
    normal = [] if normals is None else ["nx", "ny", "nz"]
    columns = [(axis, "<f8") for axis in "xyz"] + [(name, "<f4") for name in normal] + [(name, "u1") for name in color]
    rows = np.empty(len(xyz), dtype=columns)
    for k, axis in enumerate("xyz"):
        rows[axis] = xyz[:, k]
    for k, name in enumerate(normal):
        rows[name] = normals[:, k]  # type: ignore[index]
    for k, name in enumerate(color):
        rows[name] = rgb[:, k]  # type: ignore[index]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}"]
    header += [f"property double {axis}" for axis in "xyz"] + [f"property float {name}" for name in normal]
    header += [f"property uchar {name}" for name in color]
    with core_io.atomic_path(path) as temporary, core_io.os_errors_as_input_errors(path):
        temporary.write_bytes("\n".join([*header, "end_header", ""]).encode() + rows.tobytes())
