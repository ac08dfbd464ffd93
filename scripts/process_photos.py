"""Compute the cameras of photographs or of a video, and write a scene for training. Needs the extra sfm.

python scripts/process_photos.py photos/garden --out data/garden
python scripts/process_photos.py garden.mp4 --out data/garden --frames 80
"""

from functools import partial

from enerf.cli import app, process

if __name__ == "__main__":
    app.run(partial(process.main, description=__doc__))
