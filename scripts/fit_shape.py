"""Fit a neural shape to a mesh: python scripts/fit_shape.py --mesh bunny.obj [--representation sdf] [--equilibrate].

A folder of meshes gives a run each and one table; --cloud takes oriented points instead, --image a picture.
"""

from functools import partial

from enerf.cli import app, train

if __name__ == "__main__":
    app.run(partial(train.main, "shape", description=__doc__), jointly=True)
