"""Train several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_nerf.py --config fern.txt --methods plain,he,unit_row,weight_norm,equilibrate --seeds 0,1,2
"""

from enerf.cli import app
from enerf.config import parser
from enerf.experiments import compare
from enerf.experiments.compare import CompareOptions
from enerf.tasks.nerf import config as nerf_config


def main() -> None:
    """Run the arms, print the table and say where the pictures are."""
    base, (chosen,) = parser.parse(nerf_config.NerfConfig, description=__doc__, extra=[CompareOptions])
    print(compare.compare(base, chosen))
    for name in ("comparison.json", "curves.png", "rates.png", "crops.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    app.enter(main)
