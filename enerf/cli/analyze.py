"""Analysis of the checkpoints of finished runs: ``enerf analyze``."""

from collections.abc import Sequence
from pathlib import Path

from enerf.experiments.options import AnalyzeOptions

DESCRIPTION = "Measure how well conditioned finished runs are: weights and curvature over steps, side by side."


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Measure the checkpoints, print the table and say where the plots are."""
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([AnalyzeOptions], description, prog=prog)
    reader.usage = "%(prog)s RUN [RUN ...] [--OPTION VALUE] ..."
    reader.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder of runs")
    given = vars(reader.parse_args(argv))

    from enerf.experiments import analyze

    print(analyze.analyze(given["runs"], parser.read_table(AnalyzeOptions, given)))
