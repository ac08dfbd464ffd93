"""OFF files: vertices and polygons, of the variants OFF, COFF, NOFF and STOFF in text.

Source: Geomview manual, Object file formats: OFF.
"""

import logging
import re

import numpy as np
from jaxtyping import Float64

from enerf.geometry import text
from enerf.geometry.triangulate import Polygons

log = logging.getLogger("enerf")

_HEADER = re.compile(r"(?:ST)?C?N?(4?n?)OFF *(.*)")


def parse(data: bytes, source: str) -> tuple[Float64[np.ndarray, "v 3"], Polygons]:
    """Vertices and polygons of the text of an OFF file; indices may be out of range.

    Raises
    ------
    ValueError
        If it is not an OFF file in text with three coordinates, or ends too early.
    """
    if b"BINARY" in data[:64]:
        raise ValueError("it is a binary OFF file, which is not read")
    every = (re.sub("#.*", "", line).strip() for line in text.decoded(data).split("\n"))
    lines = [line for line in every if line]
    match = _HEADER.fullmatch(lines[0]) if lines else None
    if match is None:
        raise ValueError("it does not begin with OFF")
    if match[1]:
        raise ValueError("it has other than three coordinates")
    rows = lines[1:] if not match[2] else [match[2], *lines[1:]]  # some programs write "OFF8 6 0"
    counts = [int(word) for word in rows[0].split()] if rows else []
    if len(counts) < 2 or min(counts[:2]) < 0:
        raise ValueError("its header has no numbers of vertices and faces")
    n, m = counts[:2]
    if len(rows) < 1 + n + m:
        raise ValueError("it ends before its last face")
    if left := len(rows) - 1 - n - m:
        log.warning("%s: %d lines after its last face were ignored", source, left)
    return text.coordinates(rows[1 : 1 + n]), _polygons(rows[1 + n : 1 + n + m])


def _polygons(lines: list[str]) -> Polygons:
    """Polygons of lines that hold the number of corners, the corners, and perhaps a color."""
    counts, corners = [], []
    for line in lines:
        number, *words = line.split()
        count = int(number)
        if not 0 <= count <= len(words):
            raise ValueError(f"a face of {len(words)} numbers has {count} corners")
        counts.append(count)
        corners += words[:count]
    found = text.numbers(" ".join(corners), np.int64)
    return Polygons(found, np.array(counts, np.int64))
