"""Train a NeRF or, with --equilibrate, an E-NeRF: python scripts/train_nerf.py --config fern.txt --equilibrate."""

from enerf import config, doors, run_nerf
from enerf.evaluation import report


def main() -> None:
    """Train, and print the table of the result."""
    options, _ = config.parse(config.NerfConfig, description=__doc__)
    metrics = run_nerf.train(options)
    if metrics is not None:
        print(report.as_text(report.results_table([metrics])))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    doors.enter(main)
