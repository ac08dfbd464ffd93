"""Write points on the surfaces of a NeRF run as a PLY file, and its cameras for COLMAP and nerfstudio.

python scripts/export_points.py logs/fern --out fern_points [--points 500000] [--link]
"""

from functools import partial

from enerf.cli import app, export_points

if __name__ == "__main__":
    app.run(partial(export_points.main, description=__doc__))
