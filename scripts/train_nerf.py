"""Train a NeRF or, with --equilibrate, an E-NeRF: python scripts/train_nerf.py --config fern.txt --equilibrate."""

from enerf.cli import app
from enerf.config import parser
from enerf.reporting import tables
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import report as nerf_report
from enerf.tasks.nerf import train as nerf_train


def main() -> None:
    """Train, and print the table of the result."""
    options, _ = parser.parse(nerf_config.NerfConfig, description=__doc__)
    metrics = nerf_train.train(options)
    if metrics is not None:
        print(tables.as_text(nerf_report.results_table([metrics])))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    app.enter(main)
