"""Deprecated alias of ``enerf.datasets.scenes.synthetic`` and of the command ``enerf generate scene``."""

import warnings

from enerf.datasets.scenes.synthetic import (
    FLOOR,
    LIGHT,
    OBJECTS,
    UP,
    camera,
    llff_row,
    poses,
    render,
    trace,
    write_scene,
)

__all__ = [
    "FLOOR",
    "LIGHT",
    "OBJECTS",
    "UP",
    "camera",
    "llff_row",
    "poses",
    "render",
    "trace",
    "write_scene",
]

warnings.warn(
    "enerf.scenes.synthetic has moved: import enerf.datasets.scenes.synthetic, or run `enerf generate scene`",
    DeprecationWarning,
    stacklevel=1 if __name__ == "__main__" else 2,
)

if __name__ == "__main__":
    import sys

    from enerf.cli import app, generate

    app.run(lambda: generate.main(["scene", *sys.argv[1:]]))
