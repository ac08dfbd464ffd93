"""Export of points and cameras: ``enerf export-points``."""

from collections.abc import Sequence

from enerf.cli import app
from enerf.core.errors import InputError
from enerf.experiments.options import ExportPointsOptions

DESCRIPTION = (
    "Write points on the surfaces of a NeRF run, with colors and normals, and its cameras for COLMAP and nerfstudio."
)


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Write the new folder, and print the paths of its parts.

    Raises
    ------
    InputError
        If the folder is no NeRF run, an option is wrong, or the new folder cannot be written.
    """
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ExportPointsOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN --out FOLDER [--OPTION VALUE] ..."
    reader.add_argument("run", type=app.path, metavar="RUN", help="folder of a run")
    given = vars(reader.parse_args(argv))
    chosen = parser.read_table(ExportPointsOptions, given)
    if not chosen.out:
        raise InputError("option --out: found nothing, expected a new folder")
    app.require_existing(given["run"])

    from enerf.core import io
    from enerf.tasks import registry

    out = app.path(chosen.out)
    if out.parent.is_dir():
        io.remove_leftovers(out.parent, levels=0)
    task, _ = registry.with_part("export_points", given["run"])
    print(*task.load("export_points")(given["run"], out, chosen), sep="\n")
