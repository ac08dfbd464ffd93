"""A compact encoding of triangle meshes, small and simple to decode in a browser.

Positions are quantized to a grid of ``2**bits`` cells along the longest side. Faces are visited breadth first across
edges. ``symbols`` has a byte for each edge that is taken from the queue: what is beyond it.

====== ==========================================================================
symbol the face beyond the edge
====== ==========================================================================
0      none, or it has been visited
1      has a new vertex
2      has a vertex of before: the next number n of ``references`` says which, that n before the next new one
3, 4   has the first or second vertex of the edge that is next in the queue
5      has the vertex opposite of the edge that was put last into the queue
====== ==========================================================================

If the queue is empty, a face is given by three numbers of ``references``: 0 is a new vertex, n the one n before the
next new one. A face (a, b, c) adds its edges (a, b), (b, c), (c, a) to the queue; one across an edge (p, q) is (q, p,
v) and adds (p, v) and (v, q). New vertices are numbered as they appear, and stored as differences from p + q − o, the
parallelogram on the edge and its opposite vertex o; vertices of faces without an edge as differences from the one
before. Differences are zigzag coded in three bytes: the lowest bytes of all before the others, of each all x before y
before z. Colors are differences modulo 256 from the color of p or of the vertex before. All is deflated at the end.

Source: the parallelogram rule is that of Touma and Gotsman, Triangle mesh compression (1998).
"""

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, UInt8

BITS = 14


@dataclass(frozen=True)
class MeshCode:
    """An encoded mesh.

    Attributes
    ----------
    data
        Deflated bytes: symbols, references (7 bits a byte, the highest set if more follow), positions, colors.
    meta
        What else decoding needs: numbers of ``vertices``, ``faces``, ``symbols`` and bytes of ``references``; ``low``
        and ``step`` of the grid; whether there are ``colors``.
    """

    data: bytes
    meta: dict[str, Any]


@dataclass
class _Order:
    """The visit of all faces."""

    symbols: bytearray
    references: bytearray
    vertices: list[int]  # old numbers in the new order
    parents: list[tuple[int, int, int]]  # p, q, o of each, in new numbers; p = q = o: the one before


def encode(
    vertices: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "m 3"],
    colors: UInt8[np.ndarray, "n 3"] | None = None,
    bits: int = BITS,
) -> MeshCode:
    """Encode a mesh of at least one face; vertices without faces are left out, and the order of all changes."""
    corners = vertices[faces]
    low = corners.min((0, 1))
    step = max(float((corners.max((0, 1)) - low).max()), 1e-30) / (2**bits - 1)
    order = _visit(faces)
    used, parents = np.array(order.vertices), np.array(order.parents) + 1
    grid = np.concatenate([np.zeros((1, 3), np.int64), np.rint((vertices[used] - low) / step).astype(np.int64)])
    p, q, o = parents.T
    difference = grid[1:] - (grid[p] + grid[q] - grid[o])
    zigzag = ((difference << 1) ^ (difference >> 63)).T
    parts = [bytes(order.symbols), bytes(order.references)]
    parts += [(zigzag >> shift & 255).astype(np.uint8).tobytes() for shift in (0, 8, 16)]
    if colors is not None:
        shades = np.concatenate([np.zeros((1, 3), np.uint8), colors[used]])
        parts.append((shades[1:] - shades[p]).T.tobytes())
    meta = {
        "vertices": len(used),
        "faces": len(faces),
        "symbols": len(order.symbols),
        "references": len(order.references),
        "low": low.tolist(),
        "step": step,
        "colors": colors is not None,
    }
    return MeshCode(zlib.compress(b"".join(parts), 9), meta)


def decode(
    code: MeshCode,
) -> tuple[Float64[np.ndarray, "n 3"], Int64[np.ndarray, "m 3"], UInt8[np.ndarray, "n 3"] | None]:
    """Vertices, faces and colors of an encoded mesh: the reference implementation of the pages' script."""
    content, meta = np.frombuffer(zlib.decompress(code.data), np.uint8), code.meta
    n, split = meta["vertices"], meta["symbols"]
    values = iter(_numbers(content[split : split + meta["references"]]))
    faces, parents = _faces(iter(content[:split].tolist()), values, meta["faces"])
    rest = content[split + meta["references"] :].astype(np.int64)
    low, middle, high = rest[: 9 * n].reshape(3, 3, n)
    zigzag = (low | middle << 8 | high << 16).T
    grid, shades = np.zeros((n + 1, 3), np.int64), np.zeros((n + 1, 3), np.int64)
    tints = rest[9 * n :].reshape(3, n).T if meta["colors"] else np.zeros((n, 3), np.int64)
    for i, (p, q, o) in enumerate(np.array(parents) + 1, start=1):
        grid[i] = grid[p] + grid[q] - grid[o] + (zigzag[i - 1] >> 1 ^ -(zigzag[i - 1] & 1))
        shades[i] = shades[p] + tints[i - 1]
    colors = (shades[1:] & 255).astype(np.uint8) if meta["colors"] else None
    return grid[1:] * meta["step"] + np.array(meta["low"]), np.array(faces, dtype=np.int64), colors


def _visit(faces: Int[np.ndarray, "m 3"]) -> _Order:
    """Visit all faces breadth first, in the order of their first vertex."""
    order = _Order(bytearray(), bytearray(), [], [])
    beyond, corners = _beyond(faces).tolist(), faces.tolist()
    new: dict[int, int] = {}
    visited = bytearray(len(corners))
    queue: deque[tuple[int, int, int, int]] = deque()  # p, q, opposite, the face beyond; new numbers
    for start in range(len(corners)):
        if visited[start]:
            continue
        visited[start] = 1
        a, b, c = (_start_vertex(order, new, old) for old in corners[start])
        ends = [(a, b, c), (b, c, a), (c, a, b)]
        queue.extend((*end, other) for end, other in zip(ends, beyond[start], strict=True))
        while queue:
            p, q, o, face = queue.popleft()
            if face < 0 or visited[face]:
                order.symbols.append(0)
                continue
            visited[face] = 1
            old_p, old_q = order.vertices[p], order.vertices[q]
            k = next(k for k in range(3) if corners[face][k] == old_q and corners[face][k - 2] == old_p)
            v = _across(order, new, corners[face][k - 1], (p, q, o), queue)
            queue.append((p, v, q, beyond[face][k - 2]))
            queue.append((v, q, p, beyond[face][k - 1]))
    return order


def _start_vertex(order: _Order, new: dict[int, int], old: int) -> int:
    """New number of a vertex of a face that no edge leads to; it is recorded."""
    if old in new:
        _put(order.references, len(new) - new[old])
        return new[old]
    _put(order.references, 0)
    last = len(new) - 1
    return _add(order, new, old, (last, last, last))


def _add(order: _Order, new: dict[int, int], old: int, parents: tuple[int, int, int]) -> int:
    new[old] = len(new)
    order.vertices.append(old)
    order.parents.append(parents)
    return new[old]


def _across(
    order: _Order, new: dict[int, int], old: int, edge: tuple[int, int, int], queue: deque[tuple[int, int, int, int]]
) -> int:
    """New number of the vertex beyond an edge; it is recorded by a symbol."""
    if old not in new:
        order.symbols.append(1)
        return _add(order, new, old, edge)
    v = new[old]
    near = [*queue[0][:2], queue[-1][2]] if queue else []
    if v in near:
        order.symbols.append(3 + near.index(v))
    else:
        order.symbols.append(2)
        _put(order.references, len(new) - v)
    return v


def _faces(
    symbols: Iterator[int], values: Iterator[int], count: int
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Faces, and the parents of new vertices."""
    faces: list[tuple[int, int, int]] = []
    parents: list[tuple[int, int, int]] = []
    queue: deque[tuple[int, int, int]] = deque()

    def vertex(back: int, edge: tuple[int, int, int]) -> int:
        if back == 0:
            parents.append(edge)
            return len(parents) - 1
        return len(parents) - back

    while len(faces) < count or queue:
        if not queue:
            a, b, c = (vertex(next(values), (len(parents) - 1,) * 3) for _ in range(3))
            faces.append((a, b, c))
            queue.extend([(a, b, c), (b, c, a), (c, a, b)])
            continue
        p, q, o = queue.popleft()
        symbol = next(symbols)
        if symbol == 0:
            continue
        if symbol < 3:
            v = vertex(0 if symbol == 1 else next(values), (p, q, o))
        else:
            v = (*queue[0][:2], queue[-1][2])[symbol - 3]
        faces.append((q, p, v))
        queue.extend([(p, v, q), (v, q, p)])
    return faces, parents


def _beyond(faces: Int[np.ndarray, "m 3"]) -> Int64[np.ndarray, "m 3"]:
    """The face beyond each edge (k, k + 1) of each face, which has it in the other direction; −1: none."""
    n = int(faces.max()) + 1
    first, second = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, 1).reshape(-1).astype(np.int64)
    keys, wanted = first * n + second, second * n + first
    order = keys.argsort(kind="stable")
    found = np.searchsorted(keys[order], wanted).clip(max=len(keys) - 1)
    match = keys[order][found] == wanted
    return np.where(match, order[found] // 3, -1).reshape(-1, 3)


def _put(target: bytearray, number: int) -> None:
    """Append a number, 7 bits a byte, the low ones first."""
    while number > 127:
        target.append(number & 127 | 128)
        number >>= 7
    target.append(number)


def _numbers(content: UInt8[np.ndarray, " n"]) -> Iterator[int]:
    """The numbers of ``_put``."""
    number = shift = 0
    for byte in content.tolist():
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number
            number = shift = 0
