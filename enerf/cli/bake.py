"""Baked planes of forward-facing scenes: ``enerf bake``."""

from collections.abc import Sequence

from enerf.cli import app
from enerf.experiments.options import BakeOptions

DESCRIPTION = (
    "Bake a NeRF run of a forward-facing scene into textured planes, and tune them on its training photographs; "
    "`enerf render --fast` shows them."
)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Bake and tune the planes of a run, and print the path of their file."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([BakeOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN [--OPTION VALUE] ..."
    reader.add_argument("run", type=app.path, metavar="RUN", help="folder of a run")
    given = vars(reader.parse_args(argv))
    chosen = parser.read_table(BakeOptions, given)
    app.require_existing(given["run"])

    from enerf.core import io
    from enerf.tasks import registry

    io.remove_leftovers(given["run"])
    task, _ = registry.with_part("planes", given["run"])
    made = task.load("planes")(given["run"], chosen.planes, chosen.seconds, chosen.again, chosen.device, chosen.datadir)
    print(made)
