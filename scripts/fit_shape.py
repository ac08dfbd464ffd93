"""Learn a neural shape of a mesh: python scripts/fit_shape.py --mesh bunny.obj [--representation sdf] [--equilibrate].

A folder of meshes gives a run each and one table; --cloud takes oriented points instead, --image a picture.
"""

from pathlib import Path

from enerf.cli import app
from enerf.config import parser
from enerf.reporting import tables
from enerf.tasks.shape import config as shape_config
from enerf.tasks.shape import report as shape_report
from enerf.tasks.shape import train as shape_train


def main() -> None:
    """Learn, and print the table of the result."""
    options, _ = parser.parse(shape_config.ShapeConfig, description=__doc__)
    if options.data.mesh and Path(options.data.mesh).expanduser().is_dir():
        measured = shape_train.fit_all(options)
    else:
        metrics = shape_train.fit(options)
        measured = [metrics] if metrics is not None else []
    if measured:
        print(tables.as_text(shape_report.table(measured)))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    app.enter(main)
