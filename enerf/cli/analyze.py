"""Conditioning analysis of the checkpoints of runs: ``enerf analyze``."""

from collections.abc import Sequence

from enerf.cli import app
from enerf.experiments.options import AnalyzeOptions

DESCRIPTION = "Compare the condition numbers of weights and the curvature of the loss over the checkpoints of runs."


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Analyze the checkpoints, print the table and the paths of the plots."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([AnalyzeOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN [RUN ...] [--OPTION VALUE] ..."
    reader.add_argument("runs", nargs="+", type=app.path, metavar="RUN", help="folder of a run, or of several runs")
    given = vars(reader.parse_args(argv))
    app.require_existing(*given["runs"])

    from enerf.experiments import analyze

    print(analyze.analyze(given["runs"], parser.read_table(AnalyzeOptions, given)))
