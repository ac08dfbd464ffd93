"""Learn one shape by several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_shapes.py --config shape_relu.txt --mesh bunny.obj --methods plain,he,kept,equilibrate
"""

from enerf import config, doors, run_compare
from enerf.run_compare import CompareOptions


def main() -> None:
    """Run the arms, print the table and say where the rest is."""
    base, (chosen,) = config.parse(config.ShapeConfig, description=__doc__, extra=[CompareOptions])
    print(run_compare.compare(base, chosen))
    for name in ("comparison.json", "comparison.md", "curves.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    doors.enter(main)
