"""Train one classifier by several normalisers, or optimisers, with equal seeds and steps, and compare them.

python scripts/compare_classifiers.py --config cifar_densenet.txt --images DIR --methods bn,bn+w,bn+e --seeds 0,1,2
"""

from enerf.cli import app
from enerf.config import parser
from enerf.experiments import compare
from enerf.experiments.compare import CompareClassifierOptions
from enerf.tasks.classifier import config as classifier_config


def main() -> None:
    """Run the arms, print the table and say where the rest is."""
    base, (chosen,) = parser.parse(
        classifier_config.ClassifierConfig, description=__doc__, extra=[CompareClassifierOptions]
    )
    print(compare.compare(base, chosen))
    for name in ("comparison.json", "comparison.md", "curves.png", "rates.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    app.enter(main)
