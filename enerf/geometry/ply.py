"""A minimal PLY reader for what trimesh ignores: triangle strips and the normals of points.

A PLY file is a header that names *elements* (``vertex``, ``face``, ``tristrips``), each with a count and
*properties* (a number, or a list of numbers preceded by its length), followed by their rows in that order, as text
or binary.

Source: Turk, The PLY polygon file format (1994).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

_KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class _Property:
    """One property: its name, the type of its numbers, and the type of its length if it is a list."""

    name: str
    kind: str
    length: str | None


@dataclass
class Element:
    """The rows of one element: one column per scalar property, and per list property one array per row."""

    columns: dict[str, Float64[np.ndarray, " n"]]
    lists: dict[str, list[np.ndarray]]


def read(path: Path) -> dict[str, Element]:
    """Elements of a PLY file, by name.

    Raises
    ------
    ValueError
        If the file is not a PLY file or is truncated.
    """
    data = path.read_bytes()
    order, counts, properties, start = _header(data)
    numbers: _Text | _Bytes = _Text(data[start:]) if order == "" else _Bytes(data, start, order)
    return {name: _element(numbers, counts[name], properties[name]) for name in counts}


def faces_of_strips(strips: list[np.ndarray]) -> Int64[np.ndarray, "f 3"]:
    """Triangles of strips with consistent winding; −1 starts a new strip, degenerate triangles are skipped.

    >>> faces_of_strips([np.array([0, 1, 2, 3, -1, 4, 5, 6])]).tolist()
    [[0, 1, 2], [2, 1, 3], [4, 5, 6]]
    """
    faces = []
    for strip in strips:
        for run in np.split(strip, np.flatnonzero(strip == -1)):
            corners = run[run != -1]
            if len(corners) >= 3:
                made = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
                made[1::2] = made[1::2][:, [1, 0, 2]]
                faces.append(made)
    every = np.concatenate(faces) if faces else np.zeros((0, 3), np.int64)
    a, b, c = every.T
    return every[(a != b) & (b != c) & (c != a)]


def _header(data: bytes) -> tuple[str, dict[str, int], dict[str, list[_Property]], int]:
    """Byte order ("" for text), counts and properties by element, and the offset of the rows."""
    end = data.find(b"end_header")
    if not data.startswith(b"ply") or end < 0 or b"\n" not in data[end:]:
        raise ValueError("it has no PLY header")
    order, name = "?", ""
    counts: dict[str, int] = {}
    properties: dict[str, list[_Property]] = {}
    for line in data[:end].decode("latin-1").splitlines():
        match line.split():
            case ["format", kind, *_]:
                order = _ORDERS.get(kind, "?")
            case ["element", name, count]:
                counts[name], properties[name] = int(count), []
            case ["property", "list", length, kind, what] if name:
                properties[name].append(_Property(what, _KINDS.get(kind, "?"), _KINDS.get(length, "?")))
            case ["property", kind, what] if name:
                properties[name].append(_Property(what, _KINDS.get(kind, "?"), None))
    if order == "?" or any("?" in (each.kind, each.length) for every in properties.values() for each in every):
        raise ValueError("its header names an unknown format or kind of number")
    return order, counts, properties, data.index(b"\n", end) + 1


class _Text:
    """Sequential reader of the numbers of a text file."""

    def __init__(self, data: bytes) -> None:
        self.values = np.array(data.split(), dtype=np.float64)
        self.at = 0

    def take(self, kinds: list[str], n: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """The columns of the next ``n`` rows."""
        taken = self.values[self.at : self.at + n * len(kinds)]
        if len(taken) < n * len(kinds):
            raise ValueError("it ends before its last row")
        self.at += n * len(kinds)
        yield from taken.reshape(n, len(kinds)).T


class _Bytes:
    """Sequential reader of the numbers of a binary file."""

    def __init__(self, data: bytes, at: int, order: str) -> None:
        self.data, self.at, self.order = data, at, order

    def take(self, kinds: list[str], n: int) -> Iterator[Float64[np.ndarray, " n"]]:
        """The columns of the next ``n`` rows."""
        row = np.dtype([(str(i), self.order + kind) for i, kind in enumerate(kinds)])
        if self.at + n * row.itemsize > len(self.data):
            raise ValueError("it ends before its last row")
        rows = np.frombuffer(self.data, row, n, self.at)
        self.at += n * row.itemsize
        yield from (rows[name].astype(np.float64) for name in row.names or ())


def _element(numbers: _Text | _Bytes, count: int, properties: list[_Property]) -> Element:
    """The rows of one element: all at once without lists, row by row with them."""
    names = [each.name for each in properties if each.length is None]
    lists: dict[str, list[np.ndarray]] = {each.name: [] for each in properties if each.length is not None}
    if not lists:
        columns = numbers.take([each.kind for each in properties], count)
        return Element(dict(zip(names, columns, strict=True)), lists)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(count):
        for each in properties:
            first = next(numbers.take([each.length or each.kind], 1))
            if each.length is None:
                found[each.name].append(float(first[0]))
            else:
                items = next(numbers.take([each.kind], int(first[0])))
                lists[each.name].append(items.astype(np.int64))
    return Element({name: np.array(values, dtype=np.float64) for name, values in found.items()}, lists)
