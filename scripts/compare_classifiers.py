"""Train one classifier with several normalizations or optimizers, equal seeds and steps, and compare them.

python scripts/compare_classifiers.py --config cifar_densenet.txt --images DIR --methods bn,bn+w,bn+e --seeds 0,1,2
"""

from functools import partial

from enerf.cli import app, compare

if __name__ == "__main__":
    app.run(partial(compare.main, "classifier", description=__doc__))
