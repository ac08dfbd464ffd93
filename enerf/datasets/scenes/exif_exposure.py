"""How much light photographs took in, by their EXIF data."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import files, image_formats

EXIF_IFD = 0x8769
TAGS = TIME, F_NUMBER, ISO = 0x829A, 0x829D, 0x8827
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, KeyError, TypeError, ZeroDivisionError)


def of_files(paths: Sequence[Path]) -> Float64[np.ndarray, " n"] | None:
    """Exposure of each photograph in stops (log2 of seconds · ISO / f-number²), NaN where unknown; None if all are.

    The f-number is 1 where a file has none.
    """
    found = np.array([_of_file(path) for path in paths], dtype=np.float64)
    return None if np.isnan(found).all() else found


def _of_file(path: Path) -> float:
    try:
        with files.open_regular(path) as file, image_formats.open_image(file) as photo:
            return of_tags(dict(photo.getexif().get_ifd(EXIF_IFD)))
    except _UNREADABLE:
        return math.nan


def of_tags(tags: dict[int, Any]) -> float:
    """Exposure in stops of EXIF tags; NaN if time or ISO are unknown.

    >>> of_tags({TIME: 0.25, F_NUMBER: 2.0, ISO: 64})
    2.0
    """
    try:
        light = float(tags[TIME]) * float(np.ravel(tags[ISO])[0]) / float(tags.get(F_NUMBER, 1.0)) ** 2
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return math.nan
    return math.log2(light) if 0 < light < math.inf else math.nan
