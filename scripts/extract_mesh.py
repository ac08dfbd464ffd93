"""Turn a finished run into a mesh in the coordinates of your files, and look at it.

python scripts/extract_mesh.py logs/fern --resolution 512 --crop --floaters 0.02 --views
"""

from pathlib import Path

import numpy as np

from enerf.cli import app
from enerf.config import parser as config_parser
from enerf.experiments import extract
from enerf.experiments.extract import ExtractOptions


def main() -> None:
    """March the run's field, write the mesh and its pictures, say where they are."""
    parser = config_parser.make_parser([ExtractOptions], __doc__)
    parser.usage = "%(prog)s RUN [--OPTION VALUE] ..."
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--box",
        nargs=6,
        type=float,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="look only here, in the coordinates of your files; all that the cameras see if not given",
    )
    given = vars(parser.parse_args())
    box = None if given["box"] is None else np.array(given["box"]).reshape(2, 3)
    print(extract.extract(given["run"], config_parser.read_table(ExtractOptions, given), box))


if __name__ == "__main__":
    app.enter(main)
