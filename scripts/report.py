"""Write one self-contained HTML page about runs or comparisons: results, curves, test views, options, commands.

python scripts/report.py logs/fern logs/fern_e --out report.html
"""

from functools import partial

from enerf.cli import app, report

if __name__ == "__main__":
    app.run(partial(report.main, description=__doc__))
