"""Interactive viewer in a browser: ``enerf view``."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from enerf.cli import app
from enerf.core.errors import InputError
from enerf.tasks import registry
from enerf.viewer.options import ViewOptions

if TYPE_CHECKING:
    from enerf.viewer.mesh_window import MeshViewer
    from enerf.viewer.viser_server import Server
    from enerf.viewer.window import Viewer

DESCRIPTION = "Show a finished run, or two side by side, in a browser: fields to walk through, meshes of shapes."
log = logging.getLogger("enerf")


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Open runs, print the address of the viewer, and serve it until interrupted.

    Raises
    ------
    InputError
        If a folder is no run that can be shown, or two do not fit together.
    """
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ViewOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN [RUN] [--OPTION VALUE] ..."
    reader.add_argument("runs", type=app.path, nargs="+", metavar="RUN", help="folder of a run; at most two")
    given = vars(reader.parse_args(argv))
    chosen, runs = parser.read_table(ViewOptions, given), given["runs"]
    if len(runs) > 2:
        raise InputError(f"RUN: found {len(runs)} folders, expected one or two")
    app.require_existing(*runs)
    kinds = [_kind(run) for run in runs]
    if len(set(kinds)) > 1:
        raise InputError(f"{runs[1]}: found a run of kind {kinds[1]!r}, expected {kinds[0]!r}, as {runs[0]}")

    from enerf.viewer.viser_server import Server

    server = Server(chosen.host, chosen.port)
    try:
        viewer = _of_fields(server, runs, chosen) if kinds[0] == "nerf" else _of_shapes(server, runs, chosen)
    except BaseException:
        server.stop()
        raise
    with suppress(KeyboardInterrupt):  # how it ends, from the moment at which the address is known
        log.info("open this address in a browser; Ctrl-C ends the viewer")
        print(server.address, flush=True)
        viewer.run()


def _kind(run: Path) -> str:
    """Kind of a run that can be shown."""
    from enerf.engine import checkpoint

    shown = [each.kind for each in registry.tasks() if each.has("mesh_source")]
    return checkpoint.kind_of(checkpoint.newest(run, shown)[0]["config"])


def _of_fields(server: "Server", runs: Sequence[Path], chosen: ViewOptions) -> "Viewer":
    """Viewer of one or two NeRF runs."""
    from enerf.tasks.nerf import opened
    from enerf.viewer import nerf_runs
    from enerf.viewer.sources import SplitSource
    from enerf.viewer.window import Viewer

    views = [opened.open_views(run, chosen.device, chosen.datadir) for run in runs]
    sources = [nerf_runs.source_of(each.run, run.resolve().name) for each, run in zip(views, runs, strict=True)]
    if len(sources) == 1:
        record = nerf_runs.recorder(views[0], sources[0])
        return Viewer(server, sources[0], runs[0], recorder=record, size=chosen.size)
    return Viewer(server, SplitSource(*sources), runs[0], size=chosen.size)


def _of_shapes(server: "Server", runs: Sequence[Path], chosen: ViewOptions) -> "MeshViewer":
    """Viewer of one or two shape runs."""
    from enerf.experiments import extract
    from enerf.experiments.options import ExtractOptions
    from enerf.viewer.mesh_window import MeshViewer, ShownMesh

    settings = ExtractOptions(resolution=chosen.resolution, device=chosen.device, datadir=chosen.datadir)
    made = [extract.mesh_of(run, settings) for run in runs]
    return MeshViewer(
        server,
        [ShownMesh(run.resolve().name, m.vertices, m.faces, m.colors) for run, m in zip(runs, made, strict=True)],
    )
