"""Tests of glTF and GLB files: the cube that they describe, or one sentence."""

import base64
import json
import os
import struct

import numpy as np
import pytest

from enerf.core.errors import InputError
from enerf.geometry import mesh, read
from tests.geometry import solids

VERTICES, FACES = solids.box((-1, -1, -1), (1, 1, 1))


class Builder:
    """A glTF document with one buffer."""

    def __init__(self, nodes=({"mesh": 0},), **more):
        self.blob = b""
        self.document = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(nodes)))}],
            "nodes": [dict(node) for node in nodes], "meshes": [{"primitives": []}],
            "accessors": [], "bufferViews": [], **more,
        }  # fmt: skip

    def view(self, data, **more):
        data = data if isinstance(data, bytes) else data.tobytes()
        self.blob += b"\0" * (-len(self.blob) % 4)
        made = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more}
        self.document["bufferViews"].append(made)
        self.blob += data
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values, shape="VEC3", view=None, **more):
        kind = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}[values.dtype.str[1:]]
        made = {"componentType": kind, "count": len(values), "type": shape, **more}
        made |= {"bufferView": self.view(values) if view is None else view} if "sparse" not in more else {}
        self.document["accessors"].append(made)
        return len(self.document["accessors"]) - 1

    def primitive(self, position, indices=None, **more):
        made = {"attributes": {"POSITION": position, **more.pop("attributes", {})}, **more}
        made |= {} if indices is None else {"indices": indices}
        self.document["meshes"][0]["primitives"].append(made)
        return self

    def gltf(self, path, uri=None):
        uri = uri or "data:application/octet-stream;base64," + base64.b64encode(self.blob).decode()
        self.document["buffers"] = [{"byteLength": len(self.blob), "uri": uri}]
        path.write_text(json.dumps(self.document))
        return path

    def glb(self, path):
        self.document["buffers"] = [{"byteLength": len(self.blob)}]
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        blob = self.blob + b"\0" * (-len(self.blob) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\0") + blob
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path


def cube(values=None, **more):
    """A document of the cube from −1 to 1 with its positions stored as given."""
    made = Builder(**more)
    values = np.float32(VERTICES) if values is None else values
    position = made.accessor(values, normalized=values.dtype.kind != "f")
    return made.primitive(position, made.accessor(FACES.astype(np.uint16).reshape(-1), "SCALAR"))


def report_of(path):
    return mesh.load(path).report


def refused(path, *words):
    with pytest.raises(InputError) as caught:
        read.mesh(path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2"])
def test_normalized_integers_are_shares_of_their_largest_value(kind, tmp_path):
    most = np.iinfo(kind).max
    low = VERTICES * most if kind.startswith("i") else (VERTICES + 1) / 2 * most
    path = cube(low.astype(kind), nodes=[{"mesh": 0, "scale": [3, 3, 3]}, {"mesh": 0, "translation": [9, 0, 0]}])
    path.document["extensionsRequired"] = ["KHR_mesh_quantization"]
    vertices, _ = read.mesh(path.glb(tmp_path / "a.glb"))
    side = 2 if kind.startswith("i") else 1
    start = 9 - side / 2 * (side == 2)
    assert np.ptp(vertices[:8], axis=0) == pytest.approx([3 * side] * 3)
    assert (vertices[8:].min(axis=0)[0], vertices[8:].max(axis=0)[0]) == pytest.approx((start, start + side))


def test_integers_that_are_not_normalized_are_coordinates_and_the_stride_is_that_of_the_view(tmp_path):
    rows = np.zeros((8, 4), np.int16)
    rows[:, :3] = VERTICES * 100
    made = Builder()
    view = made.view(rows, byteStride=8)
    made.primitive(
        made.accessor(rows, view=view, byteOffset=0), made.accessor(FACES.astype("u1").reshape(-1), "SCALAR")
    )
    assert report_of(made.glb(tmp_path / "a.glb")).volume == pytest.approx(200**3)


def test_sparse_values_replace_those_of_the_view_or_zeros(tmp_path):
    made = Builder()
    places, values = made.view(np.arange(8, dtype=np.uint16)), made.view(np.float32(VERTICES))
    sparse = {
        "count": 8, "indices": {"bufferView": places, "componentType": 5123}, "values": {"bufferView": values},
    }  # fmt: skip
    made.primitive(
        made.accessor(np.float32(VERTICES), sparse=sparse), made.accessor(FACES.astype("u4").reshape(-1), "SCALAR")
    )
    assert report_of(made.glb(tmp_path / "a.glb")).volume == pytest.approx(8)


def test_nodes_are_moved_by_all_their_ancestors_and_rotations_are_quaternions(tmp_path):
    turn = [0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)]  # x to y
    stretch = np.diag([2.0, 1, 1, 1]).T.reshape(-1).tolist()
    nodes = [{"translation": [10, 0, 0], "rotation": turn, "children": [1]}, {"matrix": stretch, "mesh": 0}]
    made = cube(nodes=nodes)
    made.document["scenes"] = [{"nodes": [0]}]
    vertices, _ = read.mesh(made.glb(tmp_path / "a.glb"))
    assert np.allclose([vertices.min(axis=0), vertices.max(axis=0)], [[9, -2, -1], [11, 2, 1]], atol=1e-6)


@pytest.mark.parametrize(("mode", "order"), [(5, [0, 1, 2, 3]), (6, [0, 1, 3, 2])])
def test_strips_and_fans_are_wound_alike(mode, order, tmp_path):
    made = Builder()
    position = made.accessor(np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]))
    made.primitive(position, made.accessor(np.uint16(order), "SCALAR"), mode=mode)
    vertices, faces = read.mesh(made.glb(tmp_path / "a.glb"))
    a, b, c = vertices[faces].transpose(1, 0, 2)
    assert np.allclose(np.cross(b - a, c - a), [[0, 0, 1]] * 2)


def test_skins_move_vertices_by_their_joints_and_morph_weights_by_their_targets(tmp_path):
    nodes = [{"mesh": 0, "skin": 0, "translation": [100, 0, 0]}, {"translation": [5, 0, 0]}]
    made = cube(nodes=nodes)
    inverse = np.eye(4, dtype=np.float32)
    inverse[2, 3] = 7
    primitive = made.document["meshes"][0]["primitives"][0]
    primitive["attributes"]["JOINTS_0"] = made.accessor(np.zeros((8, 4), np.uint8), "VEC4")
    primitive["attributes"]["WEIGHTS_0"] = made.accessor(np.float32([[1, 0, 0, 0]] * 8), "VEC4")
    primitive["targets"] = [{"POSITION": made.accessor(np.float32([[0, 2, 0]] * 8))}]
    made.document["meshes"][0]["weights"] = [0.5]
    bind = made.accessor(inverse.T.reshape(1, 16).copy(), "MAT4")
    made.document["skins"] = [{"joints": [1], "inverseBindMatrices": bind}]
    vertices, _ = read.mesh(made.glb(tmp_path / "a.glb"))
    assert np.allclose(vertices.mean(axis=0), [5, 1, 7], atol=1e-6)


def test_draco_data_is_decoded_by_its_package(tmp_path):
    draco = pytest.importorskip("DracoPy")
    ball, faces = solids.ellipsoid(2)
    made = Builder(extensionsRequired=["KHR_draco_mesh_compression"])
    view = made.view(draco.encode(ball.astype(np.float32), faces.astype(np.uint32), quantization_bits=20))
    about = {"componentType": 5126, "count": len(ball), "type": "VEC3"}
    made.document["accessors"] = [about, {"componentType": 5125, "count": faces.size, "type": "SCALAR"}]
    packed = {"KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": 0}}}
    made.primitive(0, 1, extensions=packed)
    found = report_of(made.glb(tmp_path / "a.glb"))
    assert found.watertight
    assert found.volume == pytest.approx(mesh.from_arrays(ball, faces, "a").report.volume, rel=1e-4)
    made.blob = made.blob[:12] + bytes(len(made.blob) - 12)
    refused(made.glb(tmp_path / "b.glb"), "Draco data")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("KHR_draco_mesh_compression", ["KHR_draco_mesh_compression", "enerf[draco]"]),
        ("EXT_meshopt_compression", ["EXT_meshopt_compression", "no extra"]),
        ("ACME_never_heard_of", ["ACME_never_heard_of", "no extra"]),
    ],
)
def test_required_extensions_that_are_not_read_are_named(name, words, tmp_path):
    refused(cube(extensionsRequired=[name]).glb(tmp_path / "a.glb"), *words)


def test_required_extensions_of_materials_change_no_geometry(tmp_path):
    path = cube(extensionsRequired=["KHR_materials_unlit", "KHR_texture_transform"]).glb(tmp_path / "a.glb")
    assert report_of(path).volume == pytest.approx(8)


def test_data_in_an_extension_that_is_not_read_is_not_taken_for_zeros(tmp_path):
    made = cube()
    del made.document["accessors"][0]["bufferView"]
    refused(made.glb(tmp_path / "a.glb"), "no data")
    made = cube()
    made.document["bufferViews"][0] |= {"buffer": 1, "extensions": {"EXT_meshopt_compression": {"buffer": 0}}}
    path = made.gltf(tmp_path / "b.gltf")
    made.document["buffers"].append({"byteLength": 96})
    path.write_text(json.dumps(made.document))
    refused(path, "EXT_meshopt_compression")


def test_a_buffer_is_a_file_of_the_same_folder(tmp_path):
    made = cube()
    (tmp_path / "a b.bin").write_bytes(made.blob + b"more")
    (tmp_path / "in").mkdir()
    assert report_of(made.gltf(tmp_path / "a.gltf", "a%20b.bin")).volume == pytest.approx(8)
    os.mkfifo(tmp_path / "pipe.bin")
    for uri, word in {
        "pipe.bin": "named pipe",
        "gone.bin": "No such file",
        "../a b.bin": "same folder",
        "in/../../a.bin": "same folder",
        "/dev/zero": "same folder",
        "http://127.0.0.1:9/x": "same folder",
        "in": "folder",
        "a.gltf": "declared",
        "data:;base64,@@": "base64",
    }.items():
        made.document["buffers"] = [{"byteLength": 10**6, "uri": uri}]
        (tmp_path / "bad.gltf").write_text(json.dumps(made.document))
        refused(tmp_path / "bad.gltf", word)


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d["accessors"][0].update(count=10**12),
        lambda d: d["accessors"][0].update(count=-3),
        lambda d: d["accessors"][0].update(componentType=9),
        lambda d: d["accessors"][0].update(bufferView=-1),
        lambda d: d["bufferViews"][0].update(byteOffset=2**40),
        lambda d: d["bufferViews"][0].update(byteLength="x"),
        lambda d: d["nodes"][0].update(children=[0]),
        lambda d: d["nodes"][0].update(matrix=[float("nan")] * 16),
        lambda d: d["meshes"][0]["primitives"][0].update(indices=7),
        lambda d: d.update(asset={"version": "1.0"}),
        lambda d: d.update(scene=4),
        lambda d: d.update(nodes={"0": 1}),
        lambda d: d.update(meshes=[[]]),
        lambda d: d["accessors"][0].update(
            sparse={"count": 2**40, "indices": {"bufferView": 0, "componentType": 5123}, "values": {"bufferView": 0}}
        ),
    ],
)
def test_documents_that_contradict_themselves_are_one_sentence(damage, tmp_path):
    made = cube()
    damage(made.document)
    refused(made.glb(tmp_path / "a.glb"))


def test_faces_with_positions_that_are_not_finite_are_dropped_and_said(tmp_path, caplog):
    values = np.float32(VERTICES)
    values[0] = np.inf
    assert report_of(cube(values, nodes=[{"mesh": 0, "scale": [-1, 2, 3]}]).glb(tmp_path / "a.glb")).faces > 0
    assert "not finite were dropped" in caplog.text


def test_json_may_be_filled_up_with_zeros(tmp_path):
    whole = cube().glb(tmp_path / "a.glb").read_bytes()
    end = 20 + struct.unpack("<I", whole[12:16])[0]
    (tmp_path / "b.glb").write_bytes(
        struct.pack("<4sIII", b"glTF", 2, len(whole) + 4, end - 16) + whole[16:end] + bytes(4) + whole[end:]
    )
    assert report_of(tmp_path / "b.glb").volume == pytest.approx(8)


def test_chunks_that_exceed_the_file_are_one_sentence(tmp_path):
    whole = cube().glb(tmp_path / "a.glb").read_bytes()
    (tmp_path / "b.glb").write_bytes(whole[:12] + struct.pack("<I", 2**31) + whole[16:])
    refused(tmp_path / "b.glb", "chunk")
    (tmp_path / "c.gltf").write_bytes(b'{"a":' * 20000 + b"1" + b"}" * 20000)
    refused(tmp_path / "c.gltf")
