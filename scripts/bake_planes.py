"""Bake a NeRF run of a forward-facing scene into textured planes that render fast, tuned on its photographs.

python scripts/bake_planes.py logs/fern --seconds 60
"""

from functools import partial

from enerf.cli import app, bake

if __name__ == "__main__":
    app.run(partial(bake.main, description=__doc__))
