"""State of runs and sweeps, from their files: ``enerf status``."""

import time
from collections.abc import Sequence
from pathlib import Path

from enerf.cli import app
from enerf.core.errors import InputError

DESCRIPTION = (
    "List the runs in folders, and those that sweeps there have planned: state, steps, last score, time left. It reads "
    "files only, so it works while the runs are trained, from any computer that sees the folder."
)
LEAST, MOST = 0.5, 86400.0  # seconds between two lists
CLEAR = "\x1b[2J\x1b[H"


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Print the state.

    Raises
    ------
    InputError
        If a folder does not exist, or has no run, or an option is wrong.
    """
    parser = app.ArgumentParser(description=DESCRIPTION, prog=prog, allow_abbrev=False)
    parser.add_argument("folders", nargs="*", type=app.path, metavar="FOLDER", help="folders (default: logs)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--watch", type=app.finite, metavar="SECONDS", help="print again every so many seconds")
    args = parser.parse_args(argv)
    if args.watch is not None and not LEAST <= args.watch <= MOST:
        raise InputError(f"option --watch: found {args.watch:g}, expected seconds from {LEAST:g} to {MOST:g}")
    folders = args.folders or [Path("logs")]
    app.require_existing(*folders, expected="a folder with training runs")

    from enerf.experiments import status
    from enerf.reporting import tables

    while True:
        runs = status.read_all(folders)
        if args.json:
            print(status.as_json(runs), flush=True)
        else:
            root = folders[0] if len(folders) == 1 else Path.cwd()
            text = f"{tables.as_text(status.table(runs, root))}\n\n{status.summary(runs)}"
            print((CLEAR if args.watch else "") + text, flush=True)
        if args.watch is None:
            return
        time.sleep(args.watch)
