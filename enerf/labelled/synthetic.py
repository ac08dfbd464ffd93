"""Deprecated alias of ``enerf.datasets.labelled.synthetic`` and of the command ``enerf generate labelled``."""

import warnings

from enerf.datasets.labelled.synthetic import (
    CLASSES,
    figures,
    write_cifar,
    write_folder,
    write_idx,
)

__all__ = [
    "CLASSES",
    "figures",
    "write_cifar",
    "write_folder",
    "write_idx",
]

warnings.warn(
    "enerf.labelled.synthetic has moved: import enerf.datasets.labelled.synthetic, or run `enerf generate labelled`",
    DeprecationWarning,
    stacklevel=1 if __name__ == "__main__" else 2,
)

if __name__ == "__main__":
    import sys

    from enerf.cli import app, generate

    app.run(lambda: generate.main(["labelled", *sys.argv[1:]]))
