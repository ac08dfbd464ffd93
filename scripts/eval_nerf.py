"""Measure finished runs again and print their tables, beside published figures.

python scripts/eval_nerf.py logs/fern logs/fern_e [--markdown | --csv]
"""

from functools import partial

from enerf.cli import app, evaluate

if __name__ == "__main__":
    app.run(partial(evaluate.main, description=__doc__), jointly=True)
