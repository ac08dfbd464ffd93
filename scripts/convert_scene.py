"""Write a scene of photographs and cameras in another format, with copies of its photographs.

python scripts/convert_scene.py data/garden --to transforms --out data/garden_transforms [--link] [--lossy]
"""

from functools import partial

from enerf.cli import app, convert

if __name__ == "__main__":
    app.run(partial(convert.main, description=__doc__))
