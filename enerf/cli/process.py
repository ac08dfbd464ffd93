"""Photographs or a video to a scene: ``enerf process``."""

from collections.abc import Sequence
from pathlib import Path

from enerf.cli import app
from enerf.preprocessing.options import ProcessOptions

DESCRIPTION = (
    "Compute the cameras of photographs or of a video, by structure from motion, and write a scene for enerf train."
)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Make the scene, and print a summary and the next command."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ProcessOptions], description, prog=prog)
    reader.usage = "%(prog)s PHOTOS|VIDEO --out SCENE [--OPTION VALUE] ..."
    reader.add_argument("source", type=app.path, metavar="PHOTOS|VIDEO", help="folder of photographs, or a video")
    given = vars(reader.parse_args(argv))
    options = parser.read_table(ProcessOptions, given)
    app.require_existing(given["source"], expected="a folder of photographs, or a video")

    from enerf.preprocessing import process, scene_report

    report = process.process(given["source"], options)
    print(scene_report.summary(report, Path(options.out)))
