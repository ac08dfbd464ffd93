"""Mesh files to arrays: vertices and faces of a mesh, or points and normals, in file coordinates.

Each format has a module that parses its bytes; polygons are split by ``triangulate``. Other formats are read by trimesh
where it has their reader.
"""

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float64, Int64

from enerf.core import files
from enerf.core.errors import InputError
from enerf.geometry import gltf, obj, off, ply, stl
from enerf.geometry.triangulate import Polygons, check_indices, triangles

log = logging.getLogger("enerf")

SUFFIXES = ("obj", "ply", "stl", "off", "glb", "gltf")  # those with a reader here

_Arrays = tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]
_NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))  # the second by the Point Cloud Library
_BEGINNING = 1 << 12  # bytes by which a format is recognized
_MEMORY = 12  # bytes of memory for each byte of a file with rows that are read one by one, at most
_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)  # while parsing


def mesh(path: Path) -> _Arrays:
    """Vertices and faces of all meshes in a file, with the scene's transforms applied.

    Raises
    ------
    InputError
        If the file is missing, not a regular file, too large for the memory, of an unknown format, damaged, without
        faces, or a face refers to a missing vertex.
    """
    suffix = _checked_suffix(path)
    try:
        vertices, faces = _parsed(path, suffix) if suffix in SUFFIXES else _by_trimesh(path, suffix)
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}), expected a mesh file") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    if not len(faces):
        raise _without_faces(path, len(vertices))
    check_indices(faces, len(vertices), str(path))
    return vertices, faces


def oriented_points(path: Path) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    """Points of a PLY file and their normals, not normalized.

    Raises
    ------
    InputError
        If the file is missing, not a PLY file, damaged, or its vertices have no normals.
    """
    _check_file(path)
    try:
        _check_beginning(path, "ply")
        vertex = ply.parse(_content(path, _MEMORY), str(path)).get("vertex", ply.Element({}, {})).columns
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}), expected a PLY file") from None
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    names = next((every for every in _NORMALS if set(every) <= set(vertex)), _NORMALS[0])
    missing = [name for name in ("x", "y", "z", *names) if name not in vertex]
    if missing:
        raise InputError(
            f"{path}: its points have no {', '.join(missing)}, expected a PLY file with x y z and the normals nx ny nz"
        )
    return np.stack([vertex[axis] for axis in "xyz"], axis=1), np.stack([vertex[name] for name in names], axis=1)


def _checked_suffix(path: Path) -> str:
    """The lower-case suffix of a file; raises if it is not a file, is empty, or its format is not read."""
    _check_file(path)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in SUFFIXES and suffix not in trimesh.exchange.load.mesh_formats():
        raise InputError(
            f"{path}: files of kind {suffix or 'without a suffix'!r} are not read, expected {', '.join(SUFFIXES)}"
        )
    return suffix


def _check_file(path: Path) -> None:
    """Raise if the path is not a regular file, or the file is empty."""
    expected = f"expected a file of a mesh or a point cloud ({', '.join(SUFFIXES)})"
    try:
        size = files.require_regular(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist, {expected}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: it cannot be read ({getattr(error, 'strerror', error)}), {expected}") from None
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes), {expected}")


def _content(path: Path, memory: int = 4) -> bytes:
    """Content of a file, if ``memory`` times its size is available."""
    files.require_memory(memory * files.require_regular(path), str(path))
    return files.read_bytes(path)


def _check_beginning(path: Path, suffix: str) -> None:
    """Raise ``ValueError`` if a file does not begin as its format does, before all of it is read."""
    beginning = files.read_bytes(path, start=_BEGINNING)
    words = beginning.removeprefix(b"\xef\xbb\xbf").lstrip()
    if suffix == "ply" and not beginning.startswith(b"ply"):
        raise ValueError("it has no PLY header")
    if suffix in ("obj", "off") and b"\0" in beginning:
        raise ValueError("it is not text in ASCII or UTF-8")
    if suffix == "stl" and not beginning.strip(b"\0"):
        raise ValueError("it begins with zero bytes only")
    if suffix in ("glb", "gltf") and not words.startswith((b"glTF", b"{")):
        raise ValueError("it is neither GLB nor JSON")


def _parsed(path: Path, suffix: str) -> _Arrays:
    """Vertices and faces of a file of one of ``SUFFIXES``; raises any of ``_DAMAGE`` if it is damaged."""
    _check_beginning(path, suffix)
    data, source = _content(path, 4 if suffix == "stl" else _MEMORY), str(path)
    if suffix == "stl":
        return stl.parse(data, source)
    if suffix in ("glb", "gltf"):
        return gltf.parse(data, path)
    if suffix == "ply":
        return _ply(data, source)
    vertices, polygons = obj.parse(data, source) if suffix == "obj" else off.parse(data, source)
    check_indices(polygons.corners, len(vertices), source, first=int(suffix == "obj"))
    return vertices, triangles(vertices, polygons, source)


def _ply(data: bytes, source: str) -> _Arrays:
    """Vertices of a PLY file, and the triangles of its polygons and strips."""
    elements = ply.parse(data, source)
    xyz = elements["vertex"].columns if "vertex" in elements else {}
    if any(axis not in xyz for axis in "xyz"):
        raise ValueError("its vertices have no x, y and z")
    vertices = np.stack([xyz[axis] for axis in "xyz"], axis=1)
    found = elements["face"].faces() if "face" in elements else None
    strips = elements["tristrips"].faces() if "tristrips" in elements else None
    faces = [np.zeros((0, 3), np.int64)]
    if found is not None:
        polygons = Polygons(found.indices(), found.counts)
        check_indices(polygons.corners, len(vertices), source)
        faces.append(triangles(vertices, polygons, source))
    if strips is not None:
        faces.append(ply.faces_of_strips(strips.rows()))
    return vertices, np.concatenate(faces)


def _by_trimesh(path: Path, suffix: str) -> _Arrays:
    """Vertices and faces that trimesh reads, unprocessed; it splits polygons into fans."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy deprecations in trimesh; the content is checked by the caller
            scene = trimesh.load_scene(
                io.BytesIO(_content(path)), file_type=suffix, process=False, skip_materials=True, allow_remote=False
            )
        vertices, faces = _meshes_of(scene)
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs the package {error.name}, expected one of {', '.join(SUFFIXES)}"
        ) from None
    except InputError:
        raise
    except Exception as error:  # trimesh's readers raise errors of any type
        raise _damaged(path, error) from None
    log.warning("%s: read by trimesh, which splits polygons into fans; concave ones would be wrong", path)
    return vertices, faces


def _meshes_of(scene: trimesh.Scene) -> _Arrays:
    """All triangles of a scene in the scene's frame; faces under a reflection are flipped."""
    vertices, faces, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for node in scene.graph.nodes_geometry:
        matrix, key = scene.graph[node]
        one = scene.geometry[key]
        moved = np.asarray(getattr(one, "vertices", np.zeros((0, 3))), dtype=np.float64)
        wound = np.asarray(getattr(one, "faces", np.zeros((0, 3))), dtype=np.int64)
        if not np.array_equal(matrix, np.eye(4)):
            moved = moved @ matrix[:3, :3].T + matrix[:3, 3]
        vertices.append(np.array(moved))
        faces.append((wound[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else wound) + count)
        count += len(moved)
    return np.concatenate(vertices), np.concatenate(faces)


def _without_faces(path: Path, points: int) -> InputError:
    """Error for a file with points only, or nothing."""
    if not points:
        return InputError(f"{path} holds no vertices and no faces, expected a triangle mesh")
    return InputError(
        f"{path} holds {points} points and no faces, expected a triangle mesh; points in a PLY file with normals "
        "(nx ny nz) are read as an oriented point cloud (--cloud)"
    )


def _damaged(path: Path, error: Exception) -> InputError:
    """Error for a file that cannot be parsed."""
    words = " ".join(str(error).split())
    if not isinstance(error, ValueError):
        words = f"{type(error).__name__}: {words}"
    kind = path.suffix.lstrip(".").upper() or "mesh"
    return InputError(f"{path} cannot be read ({words[:120]}), expected a whole and well-formed {kind} file")
