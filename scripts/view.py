"""Show a finished run, or two side by side, in a browser: fields to walk through, meshes of shapes.

python scripts/view.py logs/fern [logs/fern_e] [--host 0.0.0.0] [--port 7007]
"""

from functools import partial

from enerf.cli import app, view

if __name__ == "__main__":
    app.run(partial(view.main, description=__doc__))
