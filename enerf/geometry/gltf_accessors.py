"""Arrays of a glTF document: buffers, buffer views, accessors (strided, normalized, sparse), Draco primitives.

Source: Khronos, glTF 2.0 specification (2021), sections 3.6 and 5.1; KHR_mesh_quantization; KHR_draco_mesh_compression.
"""

import base64
import binascii
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from jaxtyping import Float64, Int64

from enerf.core import files
from enerf.core.errors import InputError

DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_LARGEST = 2**53


def entry(document: dict[str, Any], name: str, index: Any) -> dict[str, Any]:
    """Object ``index`` of one of the document's lists.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = document.get(name, [])
    if not isinstance(found, list) or isinstance(index, bool) or not isinstance(index, int):
        raise ValueError(f"{name} {index!r} is not an index of a list")
    if not 0 <= index < len(found) or not isinstance(found[index], dict):
        raise ValueError(f"it refers to number {index} of {name}, and has {len(found)}")
    return found[index]


def whole(owner: dict[str, Any], name: str, default: int | None = None) -> int:
    """A number of an object that must be whole and not negative.

    Raises
    ------
    ValueError
        If it is missing without a default, or another kind of value.
    """
    found = owner.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _LARGEST or found % 1:
        raise ValueError(f"{name} is {found!r}")
    return int(found)


class Arrays:
    """Arrays of a document, read when they are asked for.

    Parameters
    ----------
    document
        The JSON object.
    binary
        The binary chunk of a GLB file, or None.
    path
        The file: buffers are files in its folder, and errors name it.
    """

    def __init__(self, document: dict[str, Any], binary: bytes | None, path: Path) -> None:
        self._document, self._binary, self._path = document, binary, path
        self._buffers: dict[int, bytes] = {}
        self._decoded: dict[int, Any] = {}

    def attribute(self, primitive: dict[str, Any], name: str) -> np.ndarray | None:
        """An attribute of a primitive, a row per vertex, or None; raises as ``accessor`` does."""
        index = primitive.get("attributes", {}).get(name)
        if index is None:
            return None
        draco = primitive.get("extensions", {}).get(DRACO)
        if draco is None or name not in draco.get("attributes", {}):
            return self.accessor(index)
        about = entry(self._document, "accessors", index)
        found = self._draco(draco).get_attribute_by_unique_id(whole(draco["attributes"], name))
        if found is None:
            raise ValueError(f"its Draco data has no {name}")
        return _dequantized(np.asarray(found["data"]), about)

    def indices(self, primitive: dict[str, Any]) -> tuple[Int64[np.ndarray, " n"] | None, bool]:
        """Vertex indices of a primitive, or None, and whether they are separate triangles whatever its mode."""
        draco = primitive.get("extensions", {}).get(DRACO)
        if draco is not None:
            return np.asarray(self._draco(draco).faces, np.int64).reshape(-1), True
        index = primitive.get("indices")
        return (None if index is None else self.accessor(index).reshape(-1).astype(np.int64)), False

    def accessor(self, index: Any) -> np.ndarray:
        """Rows of an accessor: integers as they are, or float64 if normalized or in single precision.

        Raises
        ------
        ValueError
            If it exceeds its buffer view, is without data, or is of an unknown type.
        InputError
            If its buffer cannot be read.
        """
        about = entry(self._document, "accessors", index)
        count, width = whole(about, "count"), _WIDTHS.get(about.get("type", ""), 0)
        kind = np.dtype(_TYPES.get(about.get("componentType", 0), "V0"))
        if not width or kind.itemsize == 0:
            raise ValueError(f"accessor {index} is of type {about.get('type')}, {about.get('componentType')}")
        sparse = about.get("sparse")
        if "bufferView" in about:
            found = self._strided(about, kind, count, width)
        elif sparse is None:
            raise ValueError(f"accessor {index} has no data, or data of an extension that is not read")
        else:
            files.require_memory(2 * count * width * 8, str(self._path))
            found = np.zeros((count, width), kind)
        if sparse is not None:
            n = whole(sparse, "count")
            places = self._strided(sparse["indices"], np.dtype(_TYPES[sparse["indices"]["componentType"]]), n, 1)[:, 0]
            if n and places.max() >= count:
                raise ValueError(f"accessor {index} replaces value {places.max()} of {count}")
            found = found.copy()
            found[places] = self._strided(sparse["values"], kind, n, width)
        return _dequantized(found, about)

    def _strided(self, about: dict[str, Any], kind: np.dtype, count: int, width: int) -> np.ndarray:
        """``count`` rows of ``width`` numbers in a buffer view."""
        view = entry(self._document, "bufferViews", about.get("bufferView"))
        content = self._view(view)
        offset, row = whole(about, "byteOffset", 0), kind.itemsize * width
        stride = whole(view, "byteStride", 0) or row
        if count and offset + (count - 1) * stride + row > len(content):
            raise ValueError(f"an accessor of {count} values exceeds its {len(content)} bytes")
        return np.ndarray((count, width), kind, content, offset if count else 0, (stride, kind.itemsize))

    def _view(self, view: dict[str, Any]) -> memoryview:
        """Bytes of a buffer view."""
        packed = next((name for name in MESHOPT if name in view.get("extensions", {})), None)
        source = whole(view, "buffer")
        buffer = entry(self._document, "buffers", source)
        if packed and (source or self._binary is None) and "uri" not in buffer:
            raise InputError(f"{self._path}: its data is in {packed}, which is not read, expected a file without it")
        start, size = whole(view, "byteOffset", 0), whole(view, "byteLength")
        content = self._buffer(source, buffer)
        if start + size > len(content):
            raise ValueError(f"a buffer view ends at byte {start + size} of {len(content)}")
        return memoryview(content)[start : start + size]

    def _buffer(self, index: int, about: dict[str, Any]) -> bytes:
        """Bytes of a buffer: of the binary chunk, of a data URI, or of a file in the folder."""
        if index not in self._buffers:
            size, uri = whole(about, "byteLength"), about.get("uri")
            if uri is None:
                if index or self._binary is None:
                    raise ValueError(f"buffer {index} has no data")
                content = self._binary
            elif not isinstance(uri, str):
                raise ValueError(f"the URI of buffer {index} is {uri!r}")
            else:
                content = _data_uri(uri) if uri.startswith("data:") else self._file(uri, size)
            if len(content) < size:
                raise ValueError(f"buffer {index} has {len(content)} bytes, and {size} are declared")
            self._buffers[index] = content
        return self._buffers[index]

    def _file(self, uri: str, size: int) -> bytes:
        """The first ``size`` bytes of a file beside the document."""
        name = os.path.normpath(unquote(uri))
        remote = ":" in uri.partition("/")[0]
        if remote or os.path.isabs(name) or name.partition(os.sep)[0] == os.pardir or "\0" in name:
            raise InputError(f"{self._path}: found a buffer at {uri[:120]!r}, expected a file in the same folder")
        beside = self._path.parent / name
        try:
            files.require_memory(min(size, files.require_regular(beside)), str(beside))
            return files.read_bytes(beside, start=size)
        except OSError as error:
            raise InputError(f"{self._path}: its buffer {beside} cannot be read ({error.strerror})") from None

    def _draco(self, about: dict[str, Any]) -> Any:
        """The decoded mesh of a Draco primitive."""
        index = whole(about, "bufferView")
        if index not in self._decoded:
            try:
                import DracoPy
            except ImportError:
                raise without_draco(self._path) from None
            content = bytes(self._view(entry(self._document, "bufferViews", index)))
            try:
                self._decoded[index] = DracoPy.decode(content)
            except (DracoPy.FileTypeException, ValueError) as error:
                raise ValueError(f"its Draco data cannot be decoded: {error}") from None
        return self._decoded[index]


def without_draco(path: Path, why: str = "which needs the package DracoPy") -> InputError:
    """Error for a Draco file that cannot be read."""
    return InputError(
        f"{path}: it requires the extension {DRACO}, {why}, expected the extra draco (pip install 'enerf[draco]') and "
        "data in that extension, or a file without it"
    )


def _dequantized(found: np.ndarray, about: dict[str, Any]) -> np.ndarray:
    """Float64 of single-precision numbers, and of normalized integers: their share of the largest one, at least −1."""
    if found.dtype.kind == "f":
        return found.astype(np.float64)
    if not about.get("normalized"):
        return found
    scaled: Float64[np.ndarray, "n k"] = found / np.iinfo(found.dtype).max
    return np.maximum(scaled, -1.0)


def _data_uri(uri: str) -> bytes:
    """Content of a data URI."""
    head, comma, content = uri.partition(",")
    if not comma:
        raise ValueError("a data URI has no content")
    if not head.endswith(";base64"):
        return unquote_to_bytes(content)
    try:
        return base64.b64decode(unquote(content), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a data URI is not base64: {error}") from None
