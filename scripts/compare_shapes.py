"""Learn one shape by several methods with equal seeds and steps and compare them, with scale-matched controls.

python scripts/compare_shapes.py --config shape_relu.txt --mesh bunny.obj --methods plain,he,kept,equilibrate
"""

from enerf.cli import app
from enerf.config import parser
from enerf.experiments import compare
from enerf.experiments.compare import CompareOptions
from enerf.tasks.shape import config as shape_config


def main() -> None:
    """Run the arms, print the table and say where the rest is."""
    base, (chosen,) = parser.parse(shape_config.ShapeConfig, description=__doc__, extra=[CompareOptions])
    print(compare.compare(base, chosen))
    for name in ("comparison.json", "comparison.md", "curves.png"):
        if (base.folder / name).is_file():
            print(base.folder / name)


if __name__ == "__main__":
    app.enter(main)
