"""Mesh files to arrays: vertices and faces of a mesh, or points and normals, in file coordinates.

Formats are read by trimesh; what it ignores or reads incorrectly is handled here: triangle strips, faces that refer to
missing vertices, files with points only, truncated files.
"""

import re
import warnings
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float64, Int64

from enerf.core.errors import InputError
from enerf.geometry import ply

SUFFIXES = ("obj", "ply", "stl", "off", "glb", "gltf")  # those trimesh reads without further packages

_Arrays = tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]
_HEADER = 1 << 16  # bytes that contain any header
# "f" lines whose vertex number is 0: OBJ counts from 1, and trimesh takes 0 for the last vertex
_OBJ_ZERO = re.compile(rb"^[ \t]*f[ \t](?:[^\n]*[ \t])?0(?=[/\s]|\Z)", re.MULTILINE)


def mesh(path: Path) -> _Arrays:
    """Vertices and faces of all meshes in a file, with the scene's transforms applied.

    Raises
    ------
    InputError
        If the file is missing, of an unknown format, damaged, without faces, or a face refers to a missing vertex.
    """
    _check_file(path)
    if path.suffix.lower() == ".ply" and b"element tristrips" in path.read_bytes()[:_HEADER]:
        vertices, faces = _strips(path)
        points = len(vertices)
    else:
        scene = _scene(path)
        vertices, faces = _meshes_of(scene)
        points = sum(len(getattr(one, "vertices", ())) for one in scene.geometry.values())
    if not len(faces):
        raise _without_faces(path, points)
    if faces.min() < 0 or faces.max() >= len(vertices):
        bad = int(faces.max() if faces.max() >= len(vertices) else faces.min())
        raise InputError(f"{path}: a face names vertex {bad}, expected numbers from 0 to {len(vertices) - 1}")
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
        vertex = ply.read(path).get("vertex", ply.Element({}, {})).columns
    except ValueError as error:
        raise _damaged(path, error) from None
    missing = [name for name in ("x", "y", "z", "nx", "ny", "nz") if name not in vertex]
    if missing:
        raise InputError(
            f"{path}: its points have no {', '.join(missing)}, expected a PLY file with x y z and the normals nx ny nz"
        )
    return tuple(np.stack([vertex[p + axis] for axis in "xyz"], axis=1) for p in ("", "n"))  # type: ignore[return-value]


def _check_file(path: Path) -> None:
    """Raise if the path is not a file, or the file is empty."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {found}, expected a mesh file ({', '.join(SUFFIXES)})")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes), expected a mesh file ({', '.join(SUFFIXES)})")


def _scene(path: Path) -> trimesh.Scene:
    """The scene that trimesh loads, vertices and faces unprocessed."""
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in SUFFIXES and suffix not in trimesh.exchange.load.mesh_formats():
        raise InputError(
            f"{path}: files of kind {suffix or 'without a suffix'!r} are not read, expected {', '.join(SUFFIXES)}"
        )
    if suffix == "obj" and _OBJ_ZERO.search(path.read_bytes()):
        raise InputError(f"{path}: a face names vertex 0, expected numbers from 1, as OBJ files count")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy deprecations in trimesh; the content is checked below
            scene = trimesh.load_scene(path, process=False, skip_materials=True)
        faces = sum(len(getattr(one, "faces", ())) for one in scene.geometry.values())
        if suffix == "off" and _declared_faces(path) > faces:
            raise ValueError("it ends before its last face")
        return scene
    except ImportError as error:
        if suffix in SUFFIXES:  # invalid binary files are tried as text, which needs another package
            raise _damaged(path, ValueError("it does not hold what its header says")) from None
        raise InputError(
            f"{path}: reading it needs the package {error.name}, expected one of {', '.join(SUFFIXES)}"
        ) from None
    except Exception as error:  # trimesh's readers raise errors of any type
        raise _damaged(path, error) from None


def _declared_faces(path: Path) -> int:
    """Number of faces in the header of an OFF file; trimesh silently accepts fewer."""
    lines = (line.split(b"#")[0] for line in path.read_bytes()[:_HEADER].splitlines())
    numbers = [word for line in lines for word in line.split() if word.isdigit()]
    return int(numbers[1]) if len(numbers) > 1 else 0


def _meshes_of(scene: trimesh.Scene) -> _Arrays:
    """All triangles of a scene in the scene's frame; faces under a reflection are flipped."""
    vertices, faces, count = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for node in scene.graph.nodes_geometry:
        matrix, key = scene.graph[node]
        one = scene.geometry[key]
        if not isinstance(one, trimesh.Trimesh) or not len(one.faces):
            continue
        moved = np.asarray(one.vertices, dtype=np.float64)
        if not np.array_equal(matrix, np.eye(4)):
            moved = moved @ matrix[:3, :3].T + matrix[:3, 3]
        wound = np.asarray(one.faces, dtype=np.int64)
        vertices.append(np.array(moved))
        faces.append((wound[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else wound) + count)
        count += len(moved)
    return np.concatenate(vertices), np.concatenate(faces)


def _strips(path: Path) -> _Arrays:
    """Vertices of a PLY file and the faces of its triangle strips, which trimesh ignores."""
    try:
        elements = ply.read(path)
        every = [strip for found in elements["tristrips"].lists.values() for strip in found]
        xyz = elements["vertex"].columns
        return np.stack([xyz[axis] for axis in "xyz"], axis=1), ply.faces_of_strips(every)
    except (ValueError, KeyError) as error:
        raise _damaged(path, error) from None


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
    if isinstance(error, IndexError) and "out of bounds" in words:
        words = "a face refers to a missing vertex, or the file is truncated"
    reason = words[:120] or type(error).__name__
    kind = path.suffix.lstrip(".").upper() or "mesh"
    return InputError(f"{path} cannot be read ({reason}), expected a whole and well-formed {kind} file")
