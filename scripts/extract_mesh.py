"""Extract a mesh from a finished run, in the coordinates of your files, and render pictures of it.

python scripts/extract_mesh.py logs/fern --resolution 512 --crop --floaters 0.02 --views
"""

from functools import partial

from enerf.cli import app, extract

if __name__ == "__main__":
    app.run(partial(extract.main, description=__doc__), jointly=True)
