"""Train a classifier: python scripts/train_classifier.py --config cifar_densenet.txt --images DIR --normalisation bn+e.

DIR holds CIFAR-10 or CIFAR-100 in binary or Python form, idx files, or images in train/CLASS/ and test/CLASS/.
"""

from enerf import config, doors, run_classifier
from enerf.evaluation import classifier_report, report


def main() -> None:
    """Train, and print the table of the result."""
    options, _ = config.parse(config.ClassifierConfig, description=__doc__)
    metrics = run_classifier.train(options)
    if metrics is not None:
        print(report.as_text(classifier_report.table([metrics])))
    print(f"results: {options.folder}")


if __name__ == "__main__":
    doors.enter(main)
