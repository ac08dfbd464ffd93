"""Learn a neural shape of a mesh: python scripts/fit_shape.py --mesh bunny.obj [--representation sdf] [--equilibrate].

A folder of meshes gives a run each and one table; --cloud takes oriented points instead, --image a picture.
"""

from pathlib import Path

from enerf import config, doors, run_shape
from enerf.evaluation import report, shape_report


def main() -> None:
    """Learn, and print the table of the result."""
    options, _ = config.parse(config.ShapeConfig, description=__doc__)
    if options.data.mesh and Path(options.data.mesh).expanduser().is_dir():
        measured = run_shape.fit_all(options)
    else:
        metrics = run_shape.fit(options)
        measured = [metrics] if metrics is not None else []
    if measured:
        print(report.as_text(shape_report.table(measured)))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    doors.enter(main)
