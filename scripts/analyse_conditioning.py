"""Tell how well conditioned finished runs are: weights and curvature over steps, side by side.

python scripts/analyse_conditioning.py logs/cmp [RUN ...] [--checkpoints 5] [--no_hessian]
"""

from pathlib import Path

from enerf.cli import app
from enerf.config import parser as config_parser
from enerf.experiments import analyze
from enerf.experiments.analyze import AnalyseOptions


def main() -> None:
    """Measure the checkpoints, print the table and say where the pictures are."""
    parser = config_parser.make_parser([AnalyseOptions], __doc__)
    parser.usage = "%(prog)s RUN [RUN ...] [--OPTION VALUE] ..."
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder of runs")
    given = vars(parser.parse_args())
    print(analyze.analyse(given["runs"], config_parser.read_table(AnalyseOptions, given)))


if __name__ == "__main__":
    app.enter(main)
