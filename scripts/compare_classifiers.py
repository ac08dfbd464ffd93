"""Train one classifier by several normalisers, or optimisers, with equal seeds and steps, and compare them.

python scripts/compare_classifiers.py --config cifar_densenet.txt --images DIR --methods bn,bn+w,bn+e --seeds 0,1,2
"""

from enerf import config, doors, run_compare
from enerf.run_compare import CompareClassifierOptions


def main() -> None:
    """Run the arms, print the table and say where the rest is."""
    base, (chosen,) = config.parse(config.ClassifierConfig, description=__doc__, extra=[CompareClassifierOptions])
    print(run_compare.compare(base, chosen))
    for name in ("comparison.json", "comparison.md", "curves.png", "rates.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    doors.enter(main)
