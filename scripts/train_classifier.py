"""Train a classifier: python scripts/train_classifier.py --config cifar_densenet.txt --images DIR --normalisation bn+e.

DIR holds CIFAR-10 or CIFAR-100 in binary or Python form, idx files, or images in train/CLASS/ and test/CLASS/.
"""

from enerf.cli import app
from enerf.config import parser
from enerf.reporting import tables
from enerf.tasks.classifier import config as classifier_config
from enerf.tasks.classifier import report as classifier_report
from enerf.tasks.classifier import train as classifier_train


def main() -> None:
    """Train, and print the table of the result."""
    options, _ = parser.parse(classifier_config.ClassifierConfig, description=__doc__)
    metrics = classifier_train.train(options)
    if metrics is not None:
        print(tables.as_text(classifier_report.table([metrics])))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    app.enter(main)
