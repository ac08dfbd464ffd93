"""Train several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_nerf.py --config fern.txt --methods plain,he,unit_row,weight_norm,equilibrate --seeds 0,1,2
"""

from functools import partial

from enerf.cli import app, compare

if __name__ == "__main__":
    app.run(partial(compare.main, "nerf", description=__doc__))
