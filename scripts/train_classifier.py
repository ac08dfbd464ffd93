"""Train a classifier: python scripts/train_classifier.py --config cifar_densenet.txt --images DIR --normalisation bn+e.

DIR holds CIFAR-10 or CIFAR-100 in binary or Python form, idx files, or images in train/CLASS/ and test/CLASS/.
"""

from functools import partial

from enerf.cli import app, train

if __name__ == "__main__":
    app.run(partial(train.main, "classifier", description=__doc__), jointly=True)
