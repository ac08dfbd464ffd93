"""Report of runs as one HTML page: ``enerf report``."""

import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from enerf.cli import app
from enerf.experiments.options import ReportOptions

DESCRIPTION = (
    "Write one self-contained HTML page about runs or comparisons: results beside published ones, curves, test views "
    "with their errors, weights, options, videos, environment, commands."
)
log = logging.getLogger("enerf")


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Write the page; log what is missing in it, and print its path.

    Raises
    ------
    InputError
        If no run can be read, an option is wrong, or the page cannot be written.
    """
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ReportOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN... [--out report.html] [--OPTION VALUE] ..."
    reader.add_argument("runs", nargs="+", type=app.path, metavar="RUN", help="folder of a run, or of several runs")
    given = vars(reader.parse_args(argv))
    chosen = parser.read_table(ReportOptions, given)
    app.require_existing(*([app.path(chosen.page)] if chosen.page else []), expected="a self-contained HTML page")
    app.require_existing(*given["runs"])

    from enerf.experiments import report

    version = str(importlib.import_module("enerf").__version__)  # modules of enerf do not `import enerf`
    written = report.write(given["runs"], chosen, version, _planes_page() if chosen.planes else None)
    for note in written.notes:
        log.warning("%s", note)
    print(report.summary(written))


def _planes_page() -> Callable[[Path, str], str]:
    """Return the function that makes pages of planes."""
    from enerf.export import web

    return web.text_of_scene
