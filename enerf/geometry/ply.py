"""PLY files, text and binary in both byte orders: rows of any elements with any properties.

A PLY file is a header that names *elements* (``vertex``, ``face``, ``tristrips``), each with a count and
*properties* (a number, or a list of numbers preceded by its length), followed by their rows in that order, as text
or binary. Text is read as if it were binary with every number in double precision.

Source: Turk, The PLY polygon file format (1994).
"""

import logging
import re
import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from enerf.geometry import text

log = logging.getLogger("enerf")

_KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8", "int64": "i8", "uint64": "u8"},
}
_CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q", "f4": "f", "f8": "d"}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_END = re.compile(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)")
_HEADER_LIMIT = 1 << 20  # bytes within which a header ends
_CUT = "it ends before its last row"


@dataclass(frozen=True)
class _Property:
    """One property: its name, the type of its numbers, and the type of its length if it is a list."""

    name: str
    kind: str
    length: str | None

    @property
    def size(self) -> int:
        """Bytes of one number."""
        return int(self.kind[1])

    @property
    def lead(self) -> int:
        """Bytes in every row: of the number, or of the length of a list."""
        return int((self.length or self.kind)[1])


@dataclass(frozen=True)
class Ragged:
    """A list per row: the values of all lists, one after the other, and the length of each."""

    values: np.ndarray
    counts: Int64[np.ndarray, " n"]

    def indices(self) -> Int64[np.ndarray, " c"]:
        """The values converted to whole numbers, which are indices of vertices.

        Raises
        ------
        ValueError
            If one is not a whole number.
        """
        if self.values.dtype.kind == "f" and not (np.abs(self.values) < 2**53).all():
            raise ValueError("a face has corners that are not whole numbers")
        found = self.values.astype(np.int64)
        if (found != self.values).any():
            raise ValueError("a face has corners that are not whole numbers")
        return found

    def rows(self) -> list[np.ndarray]:
        """One array of indices per row."""
        return np.split(self.indices(), np.cumsum(self.counts)[:-1]) if len(self.counts) else []


@dataclass
class Element:
    """The rows of one element: a column per scalar property, and the lists of each list property."""

    columns: dict[str, Float64[np.ndarray, " n"]]
    lists: dict[str, Ragged]

    def faces(self) -> Ragged | None:
        """The list of vertex indices, or None if there is none."""
        named = (self.lists[name] for name in ("vertex_indices", "vertex_index") if name in self.lists)
        return next(named, next(iter(self.lists.values())) if len(self.lists) == 1 else None)


def parse(data: bytes, source: str) -> dict[str, Element]:
    """Elements of a PLY file, by name; what follows the last row is ignored with a warning.

    Raises
    ------
    ValueError
        If the file is not a PLY file, its header is ambiguous, a list has an invalid length, or the file is truncated.
    """
    order, counts, properties, at = _header(data)
    if order == "":
        data, at, order = _numbers(data[at:], sum(counts.values()), source).tobytes(), 0, "="
        properties = {
            name: [_Property(p.name, "f8", p.length and "f8") for p in every] for name, every in properties.items()
        }
    elements = {}
    for name, count in counts.items():
        elements[name], at = _element(data, at, order, count, properties[name])
    if at < len(data) and (order == "=" or data[at : at + _HEADER_LIMIT].strip()):
        left = f"{(len(data) - at) // 8} numbers" if order == "=" else f"{len(data) - at} bytes"
        log.warning("%s: %s after its last row were ignored", source, left)
    return elements


def _numbers(body: bytes, rows: int, source: str) -> Float64[np.ndarray, " n"]:
    """Numbers of a text; what follows its last row is ignored with a warning if it is not numbers.

    Raises
    ------
    ValueError
        If a word in the rows is not a number.
    """
    try:
        return text.numbers(body)
    except ValueError:
        lines = [line for line in body.splitlines() if line.strip()]
        if len(lines) <= rows:
            raise
        found = text.numbers(b"\n".join(lines[:rows]))
        log.warning("%s: %d lines after its last row were ignored", source, len(lines) - rows)
        return found


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
    end = _END.search(data, 0, _HEADER_LIMIT)
    if not data.startswith(b"ply") or end is None:
        raise ValueError("it has no PLY header")
    line_end = 1 if end[1] == b"\r\n" and b"\r\n" not in data[: end.start() + 1] else len(end[1])  # rows may begin so
    order, name = "?", ""
    counts: dict[str, int] = {}
    properties: dict[str, list[_Property]] = {}
    for line in data[: end.start()].decode("latin-1").splitlines():
        match line.split():
            case ["format", kind, *_]:
                order = _ORDERS.get(kind, "?")
            case ["element", name, count]:
                if name in counts or len(count) > 18 or int(count) < 0:
                    raise ValueError(f"its header has the element {name!r} twice, or an invalid number of it")
                counts[name], properties[name] = int(count), []
            case ["property", "list", length, kind, what] if name:
                properties[name].append(_Property(what, _KINDS.get(kind, "?"), _KINDS.get(length, "?")))
            case ["property", kind, what] if name:
                properties[name].append(_Property(what, _KINDS.get(kind, "?"), None))
    every = [each for found in properties.values() for each in found]
    if order == "?" or any("?" in (each.kind, each.length) for each in every):
        raise ValueError("its header names an unknown format or kind of number")
    if any(len({each.name for each in found}) < len(found) for found in properties.values()):
        raise ValueError("its header names a property twice")
    return order, counts, properties, end.start(1) + line_end


def _element(data: bytes, at: int, order: str, count: int, properties: list[_Property]) -> tuple[Element, int]:
    """The rows of one element, and the offset after them."""
    if count * sum(each.lead for each in properties) > len(data) - at:
        raise ValueError(_CUT)
    if not count or not properties:
        empty = {each.name: np.zeros(0) for each in properties if each.length is None}
        none = np.zeros(0, np.int64)
        return Element(empty, {each.name: Ragged(none, none) for each in properties if each.length is not None}), at
    found = _uniform(data, at, order, count, properties)
    return found if found is not None else _scanned(data, at, order, count, properties)


def _uniform(data: bytes, at: int, order: str, count: int, properties: list[_Property]) -> tuple[Element, int] | None:
    """The rows of an element whose lists are as long in each row as in the first, or None if they are not."""
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    offset, lengths = at, {}
    for i, each in enumerate(properties):
        if each.length is not None:
            n = lengths[i] = _length(data, offset, order, each)
            fields.append((f"length{i}", order + each.length, ()))
            offset += n * each.size
        fields.append((f"value{i}", order + each.kind, (lengths[i],) if i in lengths else ()))
        offset += each.lead
    row = np.dtype(fields)
    if at + count * row.itemsize > len(data):
        return None
    rows = np.frombuffer(data, row, count, at)
    if any((rows[f"length{i}"] != n).any() for i, n in lengths.items()):
        return None
    columns = {p.name: rows[f"value{i}"].astype(np.float64) for i, p in enumerate(properties) if i not in lengths}
    lists = {
        properties[i].name: Ragged(_native(rows[f"value{i}"].reshape(-1)), np.full(count, n, np.int64))
        for i, n in lengths.items()
    }
    return Element(columns, lists), at + count * row.itemsize


def _scanned(data: bytes, at: int, order: str, count: int, properties: list[_Property]) -> tuple[Element, int]:
    """The rows of an element with lists of different lengths: their places are found row by row, then all are read."""
    listed = [i for i, each in enumerate(properties) if each.length is not None]
    leads = [sum(p.lead for p in properties[a + 1 : b]) for a, b in zip([-1, *listed[:-1]], listed, strict=True)]
    tail = sum(each.lead for each in properties[listed[-1] + 1 :])
    starts: dict[int, list[int]] = {i: [] for i in listed}
    counts: dict[int, list[int]] = {i: [] for i in listed}
    plan = [(properties[i], lead, starts[i], counts[i]) for i, lead in zip(listed, leads, strict=True)]
    for _ in range(count):
        for each, lead, begun, lengths in plan:
            at += lead
            n = _length(data, at, order, each)
            at += each.lead
            begun.append(at)
            lengths.append(n)
            at += n * each.size
        at += tail
    if at > len(data):
        raise ValueError(_CUT)
    begin = {i: np.array(starts[i], np.int64) for i in listed}
    length = {i: np.array(counts[i], np.int64) for i in listed}
    return _at_places(np.frombuffer(data, np.uint8), order, properties, begin, length), at


def _at_places(
    content: np.ndarray,
    order: str,
    properties: list[_Property],
    begin: dict[int, Int64[np.ndarray, " n"]],
    length: dict[int, Int64[np.ndarray, " n"]],
) -> Element:
    """The rows of an element whose lists have known offsets and lengths, by the index of the property."""
    element = Element({}, {})
    for i, each in enumerate(properties):
        kind = order + each.kind
        if i in begin:
            before = np.cumsum(length[i]) - length[i]
            inner = np.arange(length[i].sum()) - np.repeat(before, length[i])
            places = np.repeat(begin[i], length[i]) + inner * each.size
            element.lists[each.name] = Ragged(_gathered(content, places, kind), length[i])
            continue
        after = next((j for j in begin if j > i), None)
        if after is not None:
            places = begin[after] - sum(p.lead for p in properties[i : after + 1])
        else:
            last = max(begin)
            delta = sum(p.lead for p in properties[last + 1 : i])
            places = begin[last] + length[last] * properties[last].size + delta
        element.columns[each.name] = _gathered(content, places, kind).astype(np.float64)
    return element


def _length(data: bytes, at: int, order: str, each: _Property) -> int:
    """Length of the list at an offset; raises ``ValueError`` if it is not a length, or the list exceeds the file."""
    try:
        (n,) = struct.unpack_from(order + _CODES[each.length or each.kind], data, at)
    except struct.error:
        raise ValueError(_CUT) from None
    if not n >= 0 or n % 1:
        raise ValueError(f"a list has the length {n:g}")
    if n * each.size > len(data) - at - each.lead:
        raise ValueError(f"a list has the length {n:g}, and {_CUT}")
    return int(n)


def _gathered(content: np.ndarray, places: Int64[np.ndarray, " n"], kind: str) -> np.ndarray:
    """Numbers of one type at byte offsets."""
    number = np.dtype(kind)
    raw = np.ascontiguousarray(content[places[:, None] + np.arange(number.itemsize)])
    return _native(raw.reshape(-1).view(number))


def _native(values: np.ndarray) -> np.ndarray:
    """Values in the byte order of the processor."""
    return values.astype(values.dtype.newbyteorder("="))
