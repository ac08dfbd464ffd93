"""Fit one shape by several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_shapes.py --config shape_relu.txt --mesh bunny.obj --methods plain,he,kept,equilibrate
"""

from functools import partial

from enerf.cli import app, compare

if __name__ == "__main__":
    app.run(partial(compare.main, "shape", description=__doc__))
