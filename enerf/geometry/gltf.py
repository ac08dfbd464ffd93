"""glTF and GLB files: the triangles of a scene in the scene's frame.

Node transforms, skins in their bind pose, morph weights, quantized and sparse accessors, strips and fans are applied.
A file that requires an extension which changes geometry and is not read is refused.

Source: Khronos, glTF 2.0 specification (2021), sections 3.5 to 3.7 and 4.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from enerf.core import files
from enerf.core.errors import InputError
from enerf.geometry.gltf_accessors import DRACO, Arrays, entry, without_draco
from enerf.geometry.triangulate import check_indices

log = logging.getLogger("enerf")

_MAGIC = b"glTF"
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_READ = {DRACO, "KHR_mesh_quantization"}
_WITHOUT_GEOMETRY = ("KHR_materials_", "KHR_texture_", "EXT_texture_", "KHR_lights_", "KHR_xmp")
_INSTANCES = "EXT_mesh_gpu_instancing"
_STRIP, _FAN, _TRIANGLES = 5, 6, 4

_Matrix = Float64[np.ndarray, "4 4"]


@np.errstate(all="ignore")  # faces with vertices that are not finite are dropped later
def parse(data: bytes, path: Path) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    """Vertices and faces of a glTF or GLB file, with those of points and lines; mirrored faces are flipped.

    Raises
    ------
    ValueError
        If it is damaged, of another version, or a node is its own ancestor.
    InputError
        If it requires an extension that is not read, or an external buffer cannot be read.
    """
    document, binary = _document(data)
    if not str(document.get("asset", {}).get("version", "")).startswith("2."):
        raise ValueError("it is not of version 2 of glTF")
    _check_extensions(document, path)
    arrays = Arrays(document, binary, path)
    worlds = dict(_nodes(document))
    vertices, faces, n = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
    for index, world in worlds.items():
        node = entry(document, "nodes", index) if index >= 0 else {"mesh": -1 - index}
        if "mesh" not in node:
            continue
        mesh = entry(document, "meshes", node["mesh"])
        skin = _joints(entry(document, "skins", node["skin"]), arrays, worlds) if "skin" in node else None
        weights = node.get("weights", mesh.get("weights", []))
        for primitive in mesh.get("primitives", []):
            points = _positions(primitive, arrays, weights)
            if points is None:
                continue
            triangles = _triangles(primitive, arrays, len(points))
            check_indices(triangles, len(points), str(path))
            if skin is None:
                points = points @ world[:3, :3].T + world[:3, 3]
                triangles = triangles[:, ::-1] if np.linalg.det(world[:3, :3]) < 0 else triangles
            else:
                points = _skinned(points, primitive, arrays, skin)
            files.require_memory(2 * (points.nbytes + triangles.nbytes), str(path))  # nodes may share a mesh
            vertices.append(points)
            faces.append(triangles + n)
            n += len(points)
    return np.concatenate(vertices), np.concatenate(faces)


def _document(data: bytes) -> tuple[dict[str, Any], bytes | None]:
    """The JSON object of a file, and its binary chunk."""
    if not data.startswith(_MAGIC):
        return _object(data), None
    version, total = (int.from_bytes(data[i : i + 4], "little") for i in (4, 8))
    if version != 2:
        raise ValueError(f"it is of version {version} of GLB, and version 2 is read")
    if total > len(data):
        raise ValueError(f"its header says {total} bytes, and it has {len(data)}")
    chunks: dict[int, bytes] = {}
    at = 12
    while at + 8 <= total:
        size, kind = (int.from_bytes(data[i : i + 4], "little") for i in (at, at + 4))
        if at + 8 + size > total:
            raise ValueError(f"a chunk of {size} bytes exceeds the file")
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    if _JSON not in chunks:
        raise ValueError("it has no JSON chunk")
    return _object(chunks[_JSON].rstrip(b"\0")), chunks.get(_BINARY)  # some programs fill it up with zeros, not spaces


def _object(text: bytes) -> dict[str, Any]:
    """The JSON object that a text holds."""
    try:
        found = json.loads(text.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("its JSON is not an object")
    return found


def _check_extensions(document: dict[str, Any], path: Path) -> None:
    """Raise if the file requires an extension that is not read."""
    required = [str(name) for name in document.get("extensionsRequired", [])]
    unknown = [name for name in required if name not in _READ and not name.startswith(_WITHOUT_GEOMETRY)]
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise InputError(
            f"{path}: it requires the extension{plural} {', '.join(unknown)[:200]}, which no extra of enerf reads, "
            "expected a file without it (glTF-Transform and Blender write such files)"
        )
    if DRACO in required and not any(DRACO in one.get("extensions", {}) for one in _primitives(document)):
        raise without_draco(path, "and none of its primitives has data in it")
    if any(_INSTANCES in node.get("extensions", {}) for node in document.get("nodes", [])):
        log.warning("%s: its instances (%s) are not read, each such mesh is placed once", path, _INSTANCES)


def _primitives(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for mesh in document.get("meshes", []):
        yield from mesh.get("primitives", [])


def _nodes(document: dict[str, Any]) -> Iterator[tuple[int, _Matrix]]:
    """Index and world transform of each node of the scene; without any node, −1 − index of each mesh."""
    nodes = document.get("nodes", [])
    if not nodes:
        yield from ((-1 - i, np.eye(4)) for i in range(len(document.get("meshes", []))))
        return
    if document.get("scenes"):
        roots = entry(document, "scenes", document.get("scene", 0)).get("nodes", [])
    else:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [i for i in range(len(nodes)) if i not in children]
    waiting = [(i, np.eye(4)) for i in reversed(roots)]
    reached: set[int] = set()
    while waiting:
        index, above = waiting.pop()
        node = entry(document, "nodes", index)
        if index in reached:
            raise ValueError(f"node {index} has two parents, or is its own ancestor")
        reached.add(index)
        world = above @ _local(node)
        yield index, world
        waiting += [(child, world) for child in reversed(node.get("children", []))]


def _local(node: dict[str, Any]) -> _Matrix:
    """Transform of a node relative to its parent."""
    if "matrix" in node:
        made = np.array(node["matrix"], np.float64).reshape(4, 4).T
    else:
        x, y, z, w = (float(value) for value in node.get("rotation", (0, 0, 0, 1)))
        length = x * x + y * y + z * z + w * w
        s = 2 / length if length else 0.0
        rotation = np.array([
            [1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)],
            [s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)],
            [s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)],
        ])  # fmt: skip
        made = np.eye(4)
        made[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64)
        made[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64)
    if not np.isfinite(made).all():
        raise ValueError("the transform of a node is not finite")
    return made


def _positions(
    primitive: dict[str, Any], arrays: Arrays, weights: list[float | int]
) -> Float64[np.ndarray, "v 3"] | None:
    """Vertices of a primitive with its morph targets applied, or None if it has none."""
    found = arrays.attribute(primitive, "POSITION")
    if found is None:
        return None
    points = found.astype(np.float64)
    if points.shape[1] != 3:
        raise ValueError(f"its positions have {points.shape[1]} coordinates")
    for weight, target in zip(weights, primitive.get("targets", []), strict=False):
        if weight and "POSITION" in target:
            points = points + float(weight) * arrays.accessor(target["POSITION"])
    return points


def _triangles(primitive: dict[str, Any], arrays: Arrays, n: int) -> Int64[np.ndarray, "f 3"]:
    """Faces of a primitive; none for points and lines."""
    mode = primitive.get("mode", _TRIANGLES)
    if mode not in (_TRIANGLES, _STRIP, _FAN):
        return np.zeros((0, 3), np.int64)
    found, separate = arrays.indices(primitive)
    corners = np.arange(n) if found is None else found
    if mode == _TRIANGLES or separate:
        if len(corners) % 3:
            raise ValueError(f"its triangles have {len(corners)} corners in all")
        return corners.reshape(-1, 3)
    if mode == _FAN:
        return np.stack([np.broadcast_to(corners[:1], (max(0, len(corners) - 2),)), corners[1:-1], corners[2:]], axis=1)
    made = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
    made[1::2] = made[1::2][:, [1, 0, 2]]
    return made


def _joints(skin: dict[str, Any], arrays: Arrays, worlds: dict[int, _Matrix]) -> Float64[np.ndarray, "j 4 4"]:
    """Transforms of the joints of a skin from the bind pose to the scene."""
    joints = skin["joints"]
    if any(joint not in worlds for joint in joints):
        raise ValueError("a joint of a skin is not a node of the scene")
    found = np.array([worlds[joint] for joint in joints]).reshape(-1, 4, 4)
    if "inverseBindMatrices" in skin:
        inverse = arrays.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        found = found @ inverse[: len(found)]
    return found


def _skinned(
    points: Float64[np.ndarray, "v 3"], primitive: dict[str, Any], arrays: Arrays, skin: Float64[np.ndarray, "j 4 4"]
) -> Float64[np.ndarray, "v 3"]:
    """Vertices moved by the joints; the transform of the mesh's own node does not apply."""
    moved, total = np.zeros_like(points), np.zeros(len(points))
    for k in range(len(primitive.get("attributes", {}))):
        joints, weights = (arrays.attribute(primitive, f"{name}_{k}") for name in ("JOINTS", "WEIGHTS"))
        if joints is None or weights is None:
            break
        if joints.max(initial=0) >= len(skin):
            raise ValueError("a vertex refers to a missing joint")
        for joint, weight in zip(joints.T.astype(np.int64), weights.T, strict=True):
            matrix = skin[joint]
            moved += weight[:, None] * (np.einsum("vij,vj->vi", matrix[:, :3, :3], points) + matrix[:, :3, 3])
            total += weight
    weighted = (total > 0)[:, None]
    return np.where(weighted, moved / np.where(weighted, total[:, None], 1.0), points)
