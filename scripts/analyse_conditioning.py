"""Measure how well conditioned finished runs are: weights and curvature over steps, side by side.

python scripts/analyse_conditioning.py logs/cmp [RUN ...] [--checkpoints 5] [--no_hessian]
"""

from functools import partial

from enerf.cli import analyze, app

if __name__ == "__main__":
    app.run(partial(analyze.main, description=__doc__))
