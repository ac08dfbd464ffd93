"""Mesh extraction: ``enerf extract``."""

from collections.abc import Sequence

from enerf.cli import app
from enerf.experiments.options import ExtractOptions

DESCRIPTION = "Extract a mesh from a finished run, in the coordinates of the input data, and render previews of it."


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Extract the mesh, write it and its previews, and print their paths."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ExtractOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN [--OPTION VALUE] ..."
    reader.add_argument("run", type=app.path, metavar="RUN", help="folder of a run")
    reader.add_argument(
        "--box",
        nargs=6,
        type=app.finite,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="extract within this box only, in the coordinates of the input data; default: all that the cameras see",
    )
    given = vars(reader.parse_args(argv))
    app.require_existing(given["run"])

    import numpy as np

    from enerf.core import io, ranks
    from enerf.experiments import extract

    if ranks.is_first():
        io.remove_leftovers(given["run"])
    box = None if given["box"] is None else np.array(given["box"]).reshape(2, 3)
    chosen = parser.read_table(ExtractOptions, given)
    if chosen.method == "fusion":
        ranks.require_alone("option --method fusion")
    with app.joined(chosen.device):
        print(extract.extract(given["run"], chosen, box))
