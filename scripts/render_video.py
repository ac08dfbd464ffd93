"""Render a camera path of a finished run to an mp4; an interrupted video is resumed.

python scripts/render_video.py logs/fern --path spiral --frames 120 [--depth] [--factor 2]
"""

from functools import partial

from enerf.cli import app, render

if __name__ == "__main__":
    app.run(partial(render.main, description=__doc__), jointly=True)
