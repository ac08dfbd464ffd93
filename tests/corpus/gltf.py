"""glTF meshes: lying accessors, buffers that lead elsewhere, quantized positions, required extensions."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.inputs import shape
from tests.corpus.registry import Command, table

FLOAT, SHORT, UNSIGNED, INT32 = 5126, 5122, 5123, 5125


def _glb(content: dict[str, Any] | bytes, binary: bytes = bytes(64)) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body


def _content(
    count: int = 3, offset: int = 0, ctype: int = FLOAT, uri: str | None = None, length: int = 64
) -> dict[str, Any]:
    """The JSON of a mesh of one triangle, or one that claims to be."""
    positions = {"bufferView": 0, "componentType": ctype, "count": count, "type": "VEC3"}
    indices = {"bufferView": 1, "componentType": INT32, "count": count, "type": "SCALAR"}
    primitive = {"attributes": {"POSITION": 0}, "indices": 1}
    views = ({"byteOffset": offset, "byteLength": 36}, {"byteOffset": 36, "byteLength": 12})
    return {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": [positions, indices],
        "bufferViews": [{"buffer": 0, **view} for view in views],
        "buffers": [{"byteLength": length, **({"uri": uri} if uri else {})}],
    }


def _quantized(dtype: str, ctype: int, required: tuple[str, ...] = ("KHR_mesh_quantization",)) -> bytes:
    """A cube whose corners are normalized integers, as KHR_mesh_quantization allows."""
    signed = dtype.startswith("<i") or dtype == "i1"
    low, high = (-np.iinfo(dtype).max if signed else 0), np.iinfo(dtype).max
    corners = np.array([[x, y, z, 0] for x in (low, high) for y in (low, high) for z in (low, high)], dtype)
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    triangles = np.array([t for a, b, c, d in faces for t in ((a, b, c), (a, c, d))], "<u4")
    size = corners.nbytes
    return _glb(
        {
            "asset": {"version": "2.0"},
            "extensionsUsed": list(required),
            "extensionsRequired": list(required),
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0, "scale": [3, 3, 3]}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
            "accessors": [
                {"bufferView": 0, "componentType": ctype, "normalized": True, "count": 8, "type": "VEC3"},
                {"bufferView": 1, "componentType": INT32, "count": 36, "type": "SCALAR"},
            ],
            "bufferViews": [
                {"buffer": 0, "byteLength": size, "byteStride": corners.strides[0]},
                {"buffer": 0, "byteOffset": size, "byteLength": triangles.nbytes},
            ],
            "buffers": [{"byteLength": size + triangles.nbytes}],
        },
        corners.tobytes() + triangles.tobytes(),
    )


def _requires(name: str) -> bytes:
    return _glb({**_content(), "extensionsRequired": [name], "extensionsUsed": [name]})


GLTF = {
    "glb:count_2e31": ("refuse", _glb(_content(2**31))),
    "glb:count_neg": ("refuse", _glb(_content(-3))),
    "glb:offset_big": ("refuse", _glb(_content(3, 2**40))),
    "glb:offset_neg": ("refuse", _glb(_content(3, -40))),
    "glb:ctype": ("refuse", _glb(_content(3, 0, 9999))),
    "glb:json_deep": ("refuse", _glb(b'{"a":' * 50000 + b"1" + b"}" * 50000)),
    "glb:json_bad": ("refuse", _glb(b"{{{{")),
    "glb:version9": ("refuse", b"glTF" + struct.pack("<II", 9, 100) + bytes(88)),
    "glb:chunk_2e31": ("refuse", b"glTF" + struct.pack("<II", 2, 100) + struct.pack("<I4s", 2**31, b"JSON") + b"{}"),
    "glb:no_scene": ("refuse", _glb({"asset": {"version": "2.0"}})),
    "glb:node_cycle": ("refuse", _glb({**_content(), "nodes": [{"mesh": 0, "children": [0]}]})),
    "glb:node_cycle2": ("refuse", _glb({**_content(), "nodes": [{"mesh": 0, "children": [1]}, {"children": [0]}]})),
    "glb:matrix_nan": (
        "refuse",
        _glb(json.dumps({**_content(), "nodes": [{"mesh": 0, "matrix": [float("nan")] * 16}]}).encode()),
    ),
    "glb:matrix_zero": ("refuse", _glb({**_content(), "nodes": [{"mesh": 0, "matrix": [0] * 16}]})),
    "gltf:uri_dotdot": ("refuse", json.dumps(_content(uri="../../../../../../etc/passwd")).encode()),
    "gltf:uri_http": ("refuse", json.dumps(_content(uri="http://127.0.0.1:9/x")).encode()),
    "gltf:uri_devzero": ("refuse", json.dumps(_content(uri="/dev/zero")).encode()),
    "gltf:uri_data_bad": ("refuse", json.dumps(_content(uri="data:application/octet-stream;base64,@@@")).encode()),
    "gltf:draco": ("refuse", json.dumps({**_content(), "extensionsRequired": ["KHR_draco_mesh_compression"]}).encode()),
}
MORE_GLTF = {
    "glb:quantized_i16": ("accept", _quantized("<i2", SHORT)),
    "glb:quantized_u16": ("accept", _quantized("<u2", UNSIGNED)),
    "glb:quantized_i8": ("accept", _quantized("i1", 5120)),
    "glb:quantized_u8": ("accept", _quantized("u1", 5121)),
    "glb:requires_draco": ("refuse", _requires("KHR_draco_mesh_compression")),
    "glb:requires_meshopt": ("refuse", _requires("EXT_meshopt_compression")),
    "glb:requires_unknown": ("refuse", _requires("ACME_secret_geometry")),
    "glb:requires_newline": ("refuse", _requires("a\nerror: all is well")),
    "glb:requires_list": ("refuse", _glb({**_content(), "extensionsRequired": [[1], None]})),
    "glb:empty": ("refuse", b""),
    "glb:magic_only": ("refuse", b"glTF"),
    "glb:length_2e31": ("refuse", b"glTF" + struct.pack("<II", 2, 2**31) + bytes(8)),
    "glb:accessor_missing": ("refuse", _glb({**_content(), "accessors": []})),
    "glb:buffer_missing": ("refuse", _glb({**_content(), "buffers": []})),
    "glb:scene_9": ("refuse", _glb({**_content(), "scene": 9})),
    "glb:node_9": ("refuse", _glb({**_content(), "scenes": [{"nodes": [9]}]})),
    "glb:scale_0": ("refuse", _glb({**_content(), "nodes": [{"mesh": 0, "scale": [0, 0, 0]}]})),
    "glb:scale_1e300": ("refuse", _glb({**_content(), "nodes": [{"mesh": 0, "scale": [1e300] * 3}]})),
    "glb:stride_2e31": ("refuse", _glb({**_content(), "bufferViews": [{"buffer": 0, "byteStride": 2**31}] * 2})),
    "glb:sparse_2e31": (
        "refuse",
        _glb({**_content(), "accessors": [{"componentType": FLOAT, "count": 2**31, "type": "VEC3"}] * 2}),
    ),
    "gltf:buffer_2e40": ("refuse", json.dumps(_content(length=2**40, uri="data:,x")).encode()),
    "gltf:bom": ("any", b"\xef\xbb\xbf" + json.dumps(_content()).encode()),
    "gltf:uri_fifo": ("refuse", json.dumps(_content(uri="fifo.bin")).encode()),
}


def _mesh_case(name: str) -> None:
    suffix = name.split(":", maxsplit=1)[0]

    @table("mesh", {name.replace(":", "_"): ALL[name]})
    def _(folder: Path, raw: bytes) -> Command:
        os.mkfifo(folder / "fifo.bin")
        (folder / f"m.{suffix}").write_bytes(raw)
        return shape(folder, "--mesh", folder / f"m.{suffix}")


ALL = GLTF | MORE_GLTF
for _name in ALL:
    _mesh_case(_name)
