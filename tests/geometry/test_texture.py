"""Textures of meshes: colors come back at the same points, from the file as well."""

import io
import json
import struct
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from enerf.core import files
from enerf.core.errors import InputError
from enerf.geometry import texture, write

OFF = np.array([1000.0, -20.0, 3.0])


def colors(points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """A smooth function of the place, and of the side in the last channel."""
    return np.concatenate([0.5 + 0.4 * np.sin(3 * (points[:, :2] - OFF[:2])), 0.5 + 0.5 * normals[:, 2:]], 1)


@pytest.fixture(scope="module")
def ball() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(3, 1.0)
    mesh.apply_translation(OFF)
    return mesh


@pytest.fixture(scope="module")
def made(ball) -> texture.TexturedMesh:
    pytest.importorskip("xatlas")
    return texture.textured(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64), colors, 256)


def read_at(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colors of the nearest texels."""
    row, column = ((1 - uv[:, 1]) * len(image)).astype(int), (uv[:, 0] * len(image)).astype(int)
    return image[row.clip(0, len(image) - 1), column.clip(0, len(image) - 1)] / 255


def off(vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Differences between the texture and the function, at points of all faces."""
    weights = np.random.default_rng(0).dirichlet([1.0] * 3, len(faces))[:, :, None]
    points, at = (weights * vertices[faces]).sum(1), (weights * uv[faces]).sum(1)
    normals = (points - OFF) / np.linalg.norm(points - OFF, axis=1, keepdims=True)
    return np.abs(read_at(image, at) - colors(points, normals)).max(1)


def test_the_texture_has_the_colors_of_the_surface(ball, made):
    np.testing.assert_array_equal(made.vertices[made.faces], ball.vertices[ball.faces])  # the same, in their order
    assert ((made.uv >= 0) & (made.uv <= 1)).all()
    found = off(made.vertices, made.faces, made.uv, made.image)
    assert np.median(found) < 0.02
    assert found.max() < 0.15  # a texel is up to 0.05 of the radius


def test_a_glb_file_has_the_positions_the_texture_and_the_image(made, tmp_path):
    path = tmp_path / "it.glb"
    write.write_textured(path, made)
    scene = trimesh.load(path, process=False)
    (mesh,) = scene.dump()
    assert mesh.visual.kind == "texture"
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(image, made.image)
    np.testing.assert_allclose(mesh.visual.uv, made.uv, atol=1e-6)
    np.testing.assert_allclose(mesh.vertices, made.vertices, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, made.faces)
    assert off(np.asarray(mesh.vertices), np.asarray(mesh.faces), np.asarray(mesh.visual.uv), image).max() < 0.15
    document = path.read_bytes()
    assert b'"bufferView"' in document
    assert b'"uri"' not in document  # nothing outside of the file
    assert b"KHR_materials_pbrSpecularGlossiness" not in document


def accessor(document: dict, blob: bytes, number: int) -> np.ndarray:
    """Values of an accessor, read by the specification of glTF 2.0 alone."""
    one = document["accessors"][number]
    kind = {5123: "<u2", 5125: "<u4", 5126: "<f4"}[one["componentType"]]
    columns = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[one["type"]]
    view = document["bufferViews"][one["bufferView"]]
    assert view["buffer"] == 0
    assert view.get("byteStride", 0) in (0, columns * int(kind[2]))
    start = view.get("byteOffset", 0) + one.get("byteOffset", 0)
    assert start % int(kind[2]) == 0  # aligned to its components
    size = one["count"] * columns * int(kind[2])
    assert one.get("byteOffset", 0) + size <= view["byteLength"]
    assert view.get("byteOffset", 0) + view["byteLength"] <= len(blob)
    found = np.frombuffer(blob[start : start + size], kind).reshape(one["count"], columns)
    for name, values in (("min", found.min(0)), ("max", found.max(0))):
        if name in one:
            np.testing.assert_allclose(one[name], values, rtol=1e-6)
    return found[:, 0] if columns == 1 else found


def test_the_file_is_glb_by_the_specification(made, tmp_path):
    """Header, chunks, accessors, material and image as glTF 2.0 has them, without the library that wrote them."""
    path = tmp_path / "it.glb"
    write.write_textured(path, made)
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert (size % 4, kind) == (0, b"JSON")
    document = json.loads(data[20 : 20 + size])
    blob_size, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert (blob_size % 4, kind, 28 + size + blob_size) == (0, b"BIN\0", len(data))
    blob = data[28 + size :]
    assert document["asset"]["version"] == "2.0"
    assert len(document["buffers"]) == 1
    assert "uri" not in document["buffers"][0]
    assert 0 <= len(blob) - document["buffers"][0]["byteLength"] < 4
    assert "extensionsRequired" not in document

    ((primitive,),) = [mesh["primitives"] for mesh in document["meshes"]]
    assert primitive.get("mode", 4) == 4
    names = ("POSITION", "NORMAL", "TEXCOORD_0")
    position, normal, uv = (accessor(document, blob, primitive["attributes"][name]) for name in names)
    faces = accessor(document, blob, primitive["indices"]).reshape(-1, 3)
    assert {"min", "max"} <= document["accessors"][primitive["attributes"]["POSITION"]].keys()
    assert len(position) == len(normal) == len(uv)
    np.testing.assert_array_equal(faces, made.faces)
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=1e-5)
    (node,) = [each for each in document["nodes"] if "mesh" in each]
    shift = np.reshape(node["matrix"], (4, 4))[3, :3]  # column by column
    np.testing.assert_allclose(position + shift, made.vertices, atol=1e-6)

    material = document["materials"][primitive["material"]]
    assert (material["doubleSided"], material["pbrMetallicRoughness"]["metallicFactor"]) == (True, 0)
    assert material["extensions"]["KHR_materials_unlit"] == {}
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]
    texture_number = material["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    image = document["images"][document["textures"][texture_number]["source"]]
    assert image["mimeType"] == "image/png"
    view = document["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    with Image.open(io.BytesIO(blob[start : start + view["byteLength"]]), formats=["PNG"]) as found:
        pixels = np.asarray(found.convert("RGB"))
    np.testing.assert_array_equal(pixels, made.image)
    upwards = np.stack([uv[:, 0], 1 - uv[:, 1]], 1)  # in glTF, v is from the top of the image
    assert off(position + shift, faces.astype(np.int64), upwards, pixels).max() < 0.15


def test_colors_at_points_of_faces_are_those_of_their_texels(ball, made):
    weights = np.random.default_rng(1).dirichlet([1.0] * 3, len(ball.faces))
    points = (weights[:, :, None] * ball.vertices[ball.faces]).sum(1)
    normals = (points - OFF) / np.linalg.norm(points - OFF, axis=1, keepdims=True)
    found = made.colors_at(np.arange(len(ball.faces)), weights)
    assert np.abs(found - colors(points, normals)).max() < 0.15


def test_a_face_as_large_as_the_texture_is_tested_in_parts(monkeypatch):
    monkeypatch.setattr(texture, "_CHUNK", 1000)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    parts = list(texture.texels(np.array([[0, 1, 2]]), corners, 256))
    assert max(len(row) for row, *_ in parts) <= 1000
    row, column = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    expected = np.tril(np.ones((256, 256), bool))  # rows from the top: the face is below the diagonal
    found = np.zeros_like(expected)
    found[row, column] = True
    np.testing.assert_array_equal(found, expected)
    assert len(row) == expected.sum()


def test_every_texel_is_in_one_face_and_chunks_change_nothing(made, monkeypatch):
    whole = [np.concatenate(part) for part in zip(*texture.texels(made.faces, made.uv, 256), strict=True)]
    assert len(np.unique(whole[0] * 256 + whole[1])) > 0.99 * len(whole[0])
    assert np.allclose(whole[3].sum(1), 1)
    monkeypatch.setattr(texture, "_CHUNK", 1000)
    parts = [np.concatenate(part) for part in zip(*texture.texels(made.faces, made.uv, 256), strict=True)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_missing_library_and_another_format_are_one_sentence(ball, made, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"found the suffix '\.ply', expected \.glb"):
        write.write_textured(tmp_path / "it.ply", made)
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(InputError, match="xatlas is missing, the extra texture brings it"):
        texture.check(64)
    with pytest.raises(InputError, match="xatlas is missing, the extra texture brings it"):
        texture.textured(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64), colors, 64)


def test_a_texture_beyond_the_memory_is_refused(monkeypatch):
    pytest.importorskip("xatlas")
    monkeypatch.setattr(files, "available_memory", lambda: 1 << 20)
    texture.check(128)
    with pytest.raises(InputError, match=r"^option --texture: 1024 x 1024 texels: needs 24.* found 1.* available"):
        texture.check(1024)
