"""Measure finished runs again and print one table per scene and method, beside published figures.

python scripts/eval_nerf.py logs/fern logs/fern_e [--markdown | --csv]
"""

import argparse
from pathlib import Path

from enerf.cli import app
from enerf.config import parser as config_parser
from enerf.core import io
from enerf.reporting import tables
from enerf.tasks.nerf import evaluate as nerf_evaluate
from enerf.tasks.nerf import report as nerf_report
from enerf.tasks.nerf import setup as nerf_setup


def main() -> None:
    """Evaluate each run at full size and print the table."""
    parser = config_parser.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, or a folder of runs")
    parser.add_argument("--datadir", default="", help="the scene, if it has moved since training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--stored", action="store_true", help="take the metrics.json that is there, render nothing")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="comma-separated values")
    form.add_argument("--markdown", action="store_true", help="a Markdown table")
    args = parser.parse_args()
    measured = []
    for folder in nerf_setup.find_runs(args.runs):
        stored = folder / "metrics.json"
        again = None if args.stored else nerf_setup.open_run(folder, args.device, args.datadir)
        measured.append(nerf_evaluate.evaluate(again) if again else io.read_json(stored))
    write = tables.as_csv if args.csv else tables.as_markdown if args.markdown else tables.as_text
    print(write(nerf_report.results_table(measured)))


if __name__ == "__main__":
    app.enter(main)
