"""STL files, text and binary: facets as they were written, without shared vertices.

A binary file is 80 arbitrary bytes, a count, and 50 bytes per facet. Many programs write a wrong count or append bytes
of their own; then all whole facets are read, with a warning.

Source: 3D Systems, Stereolithography interface specification (1988).
"""

import logging
import re

import numpy as np
from jaxtyping import Float64, Int64

from enerf.geometry import text

log = logging.getLogger("enerf")

_HEADER, _FACET = 84, 50
_ROW = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_FAR = 10.0  # trailing bytes that would be facets this many times farther out than the others are not facets
_VERTEX = re.compile(rb"\bvertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)

_Soup = tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]


def parse(data: bytes, source: str) -> _Soup:
    """Vertices and faces of an STL file, three vertices for each face.

    Raises
    ------
    ValueError
        If the file ends within a facet, or its text cannot be parsed.
    """
    corners = _text(data) if _is_text(data) else _binary(data, source)
    return corners.reshape(-1, 3), np.arange(3 * len(corners), dtype=np.int64).reshape(-1, 3)


def _is_text(data: bytes) -> bool:
    """Whether a file is text; binary ones may begin with ``solid`` as well, but have zero bytes in count or facets."""
    count = int.from_bytes(data[80:_HEADER], "little")
    exact = len(data) >= _HEADER and len(data) == _HEADER + _FACET * count
    return not exact and data.lstrip()[:5].lower() == b"solid" and b"\0" not in data[: _HEADER + 2 * _FACET]


def _text(data: bytes) -> Float64[np.ndarray, "f 3 3"]:
    """Corners of the facets of a text file."""
    found = _VERTEX.findall(data)
    facets = len(re.findall(rb"\bendfacet\b", data, re.IGNORECASE))
    if len(found) != 3 * facets or not re.search(rb"\bendsolid\b", data, re.IGNORECASE):
        raise ValueError("it ends within a facet, or has facets of other than three vertices")
    words = b" ".join(word for vertex in found for word in vertex)
    return text.numbers(words).reshape(-1, 3, 3)


def _binary(data: bytes, source: str) -> Float64[np.ndarray, "f 3 3"]:
    """Corners of the facets of a binary file."""
    if len(data) < _HEADER:
        raise ValueError(f"it has {len(data)} bytes, and a header needs {_HEADER}")
    count = int.from_bytes(data[80:_HEADER], "little")
    whole, rest = divmod(len(data) - _HEADER, _FACET)
    if count > whole and rest:
        raise ValueError(f"its header says {count} facets, and it ends within number {whole + 1}")
    corners = np.frombuffer(data, _ROW, whole, _HEADER)["corners"].astype(np.float64)
    wrong = count > whole or count == 0 or (not rest and _continues(corners, count))
    used = whole if wrong else count
    if used != count:
        log.warning("%s: its header says %d facets, but it holds %d, which were read", source, count, used)
    if left := len(data) - _HEADER - _FACET * used:
        log.warning("%s: %d bytes after its last facet were ignored", source, left)
    return corners[:used]


def _continues(corners: Float64[np.ndarray, "f 3 3"], count: int) -> bool:
    """Whether the bytes after the last counted facet are further facets, finite and of the same extent."""
    extra = corners[count:]
    with np.errstate(all="ignore"):
        reach = np.abs(corners[:count]).max(initial=0.0)
        sizes = np.ptp(extra, axis=1).max(axis=-1)
        return bool(np.isfinite(extra).all() and np.abs(extra).max(initial=0.0) <= _FAR * reach and (sizes > 0).all())
