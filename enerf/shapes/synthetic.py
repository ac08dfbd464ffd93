"""Deprecated alias of ``enerf.geometry.synthetic`` and of the command ``enerf generate shape``."""

import warnings

from enerf.geometry.synthetic import (
    BRICK,
    ELLIPSOID,
    PLATE,
    RING,
    SHAPES,
    Box,
    Composite,
    Ellipsoid,
    Shape,
    Torus,
    write_shapes,
)

__all__ = [
    "BRICK",
    "ELLIPSOID",
    "PLATE",
    "RING",
    "SHAPES",
    "Box",
    "Composite",
    "Ellipsoid",
    "Shape",
    "Together",
    "Torus",
    "write_shapes",
]

Together = Composite

warnings.warn(
    "enerf.shapes.synthetic has moved: import enerf.geometry.synthetic, or run `enerf generate shape`",
    DeprecationWarning,
    stacklevel=1 if __name__ == "__main__" else 2,
)

if __name__ == "__main__":
    import sys

    from enerf.cli import app, generate

    app.run(lambda: generate.main(["shape", *sys.argv[1:]]))
