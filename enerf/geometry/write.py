"""Meshes to files: OBJ, PLY, STL and GLB, written atomically and with sufficient precision.

- **OBJ**: text with a resolution of 1e-9 of the mesh's size; colors after the coordinates, as most programs read them.
- **PLY**: binary in double precision (trimesh writes single); colors.
- **GLB**: coordinates in single precision relative to the mesh's center, and a node that translates them; colors, or a
  texture.
- **STL**: single precision, no colors; ``too_coarse`` tells whether that would merge vertices.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from enerf.core import io
from enerf.core.errors import InputError
from enerf.geometry.texture import TexturedMesh

log = logging.getLogger("enerf")

Colors = UInt8[np.ndarray, "n 3"]
DIGITS = 1e-9  # resolution of OBJ text, relative to the mesh's size
SINGLE = 2.0**-23  # relative spacing of numbers in single precision


def check_suffix(path: Path) -> None:
    """Check that a file name has the suffix of a supported format.

    Raises
    ------
    InputError
        If not, or if the path is a folder.
    """
    if path.suffix.lower() not in WRITERS:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise InputError(f"{path}: found {found}, expected one of {', '.join(WRITERS)} for a mesh")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a file")


def check_target(path: Path) -> None:
    """Check before the work that a mesh can be written: its suffix, and that its folder can be written to.

    Raises
    ------
    InputError
        If it cannot.
    """
    check_suffix(path)
    check_writable(path.parent)


def check_writable(folder: Path) -> None:
    """Check that a folder can be written to, or created; nothing is left in it.

    Raises
    ------
    InputError
        If it cannot.
    """
    with io.os_errors_as_input_errors(folder):
        there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=there):
            pass


def too_coarse(path: Path, low: Float64[np.ndarray, " 3"], high: Float64[np.ndarray, " 3"], apart: float | int) -> bool:
    """Whether the format's precision cannot distinguish vertices a distance ``apart`` in the box ``low`` … ``high``."""
    return path.suffix.lower() == ".stl" and bool(np.abs([low, high]).max() * SINGLE > 0.25 * apart)


def write(
    path: Path, vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"], colors: Colors | None = None
) -> None:
    """Write a mesh in the format of the file's suffix; an existing file is replaced atomically.

    Raises
    ------
    InputError
        If the suffix is unknown, or the folder cannot be written to.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    if colors is not None and suffix == ".stl":
        log.warning("%s: STL files hold no colors; .ply, .obj and .glb do", path)
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        WRITERS[suffix](temporary, vertices, faces, colors)


def check_textured(path: Path) -> None:
    """Check that the format of a file name holds textures.

    Raises
    ------
    InputError
        If not.
    """
    if path.suffix.lower() != ".glb":
        raise InputError(f"{path}: found the suffix {path.suffix!r}, expected .glb for a mesh with a texture")


def write_textured(path: Path, mesh: TexturedMesh) -> None:
    """Write a mesh with its texture, embedded as PNG, as GLB; an existing file is replaced atomically.

    Raises
    ------
    InputError
        If the suffix is not .glb, or the folder cannot be written to.
    """
    check_textured(path)
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        center = (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2
        temporary.write_bytes(_glb_bytes(textured_trimesh(mesh, center), center, _unlit))


def _unlit(document: dict[str, Any]) -> None:
    """Have programs that know ``KHR_materials_unlit`` show a glTF document's textures as they are.

    They contain the light of the photographs.
    """
    document["extensionsUsed"] = sorted({*document.get("extensionsUsed", []), "KHR_materials_unlit"})
    for material in document["materials"]:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}


def textured_trimesh(mesh: TexturedMesh, origin: Float64[np.ndarray, " 3"] | None = None) -> trimesh.Trimesh:
    """Return a mesh with its texture as trimesh's, relative to ``origin``; rough, not metallic, lit on both sides."""
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.fromarray(mesh.image), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )
    visual = trimesh.visual.TextureVisuals(uv=mesh.uv, material=material)
    vertices = mesh.vertices if origin is None else mesh.vertices - origin
    return trimesh.Trimesh(vertices, mesh.faces, visual=visual, vertex_normals=mesh.normals, process=False)


def _mesh(vertices: np.ndarray, faces: np.ndarray, colors: Colors | None) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def _obj(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: Colors | None) -> None:
    size = float(np.ptp(vertices, axis=0).max()) or 1.0
    digits = int(np.clip(np.ceil(-np.log10(DIGITS * size)), 4, 300))
    text = trimesh.exchange.obj.export_obj(
        _mesh(vertices, faces, colors), include_normals=False, include_texture=False, digits=digits, header=None
    )
    path.write_text(text + "\n", encoding="ascii")


def _stl(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: Colors | None) -> None:
    path.write_bytes(trimesh.exchange.stl.export_stl(_mesh(vertices, faces, None)))


def _glb(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: Colors | None) -> None:
    center = (vertices.min(0) + vertices.max(0)) / 2
    path.write_bytes(_glb_bytes(_mesh(vertices - center, faces, colors), center))


def _glb_bytes(
    mesh: trimesh.Trimesh, center: np.ndarray, postprocess: Callable[[dict[str, Any]], None] | None = None
) -> bytes:
    """A mesh relative to its center, and a node that moves it back; ``postprocess`` changes the document in place."""
    transform = np.eye(4)
    transform[:3, 3] = center
    scene = trimesh.Scene()
    scene.add_geometry(mesh, node_name="mesh", transform=transform)
    return bytes(trimesh.exchange.gltf.export_glb(scene, tree_postprocessor=postprocess))


def _ply(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: Colors | None) -> None:
    xyz = [(axis, "<f8") for axis in "xyz"]
    color = [(name, "u1") for name in ("red", "green", "blue")] if colors is not None else []
    rows = np.empty(len(vertices), dtype=xyz + color)
    for k, axis in enumerate("xyz"):
        rows[axis] = vertices[:, k]
    for k, (name, _) in enumerate(color):
        rows[name] = colors[:, k]  # type: ignore[index]
    listed = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    listed["count"], listed["corners"] = 3, faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property double {axis}" for axis in "xyz"] + [f"property uchar {name}" for name, _ in color]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    with path.open("wb") as stream:
        stream.write("\n".join(header).encode())
        rows.tofile(stream)
        listed.tofile(stream)


WRITERS: dict[str, Callable[[Path, np.ndarray, np.ndarray, Colors | None], None]] = {
    ".obj": _obj,
    ".ply": _ply,
    ".stl": _stl,
    ".glb": _glb,
}
