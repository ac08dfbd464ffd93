"""Textures of meshes: colors come back at the same points, from the file as well."""

import sys

import numpy as np
import pytest
import trimesh

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
    assert len(made.faces) == len(ball.faces)
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
        texture.textured(np.asarray(ball.vertices), np.asarray(ball.faces, dtype=np.int64), colors, 64)
