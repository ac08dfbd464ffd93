"""Train a NeRF or, with --equilibrate, an E-NeRF: python scripts/train_nerf.py --config fern.txt --equilibrate."""

from functools import partial

from enerf.cli import app, train

if __name__ == "__main__":
    app.run(partial(train.main, "nerf", description=__doc__), jointly=True)
