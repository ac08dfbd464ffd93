"""Pages that show a run in a browser: ``enerf export-web``."""

from collections.abc import Sequence

from enerf.cli import app
from enerf.export.options import WebOptions

DESCRIPTION = (
    "Write a page that shows a run, or a mesh, in any browser: planes of a forward-facing scene to look around in, or "
    "a mesh to turn. It opens from disk and from any static host, and requests nothing else."
)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Write the page, and print what it costs to draw, its size and its path."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([WebOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN|MESH [--OPTION VALUE] ..."
    reader.add_argument("run", type=app.path, metavar="RUN", help="folder of a NeRF or shape run, or file of a mesh")
    given = vars(reader.parse_args(argv))
    chosen = parser.read_table(WebOptions, given)
    app.require_existing(given["run"], expected="the folder of a NeRF or shape run, or the file of a mesh")

    from enerf.core import io
    from enerf.export import web

    io.remove_leftovers(given["run"])
    print(web.export_web(given["run"], chosen))
