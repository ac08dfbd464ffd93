"""Write a page that shows a run, or a mesh, in any browser, from disk or from any static host.

python scripts/export_web.py logs/fern --out page
python scripts/export_web.py logs/fern --single --out fern.html
"""

from functools import partial

from enerf.cli import app, export_web

if __name__ == "__main__":
    app.run(partial(export_web.main, description=__doc__))
