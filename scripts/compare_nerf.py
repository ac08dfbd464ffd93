"""Train several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_nerf.py --config fern.txt --methods plain,he,unit_row,weight_norm,equilibrate --seeds 0,1,2
"""

from enerf import config, doors, run_compare
from enerf.run_compare import CompareOptions


def main() -> None:
    """Run the arms, print the table and say where the pictures are."""
    base, (chosen,) = config.parse(config.NerfConfig, description=__doc__, extra=[CompareOptions])
    print(run_compare.compare(base, chosen))
    for name in ("comparison.json", "curves.png", "rates.png", "crops.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    doors.enter(main)
