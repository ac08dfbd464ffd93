"""Video rendering: ``enerf render``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from enerf.cli import app
from enerf.core.errors import InputError, shown
from enerf.tasks import registry

if TYPE_CHECKING:
    from enerf.datasets.scenes.camera_path_files import CameraPath

DESCRIPTION = "Render a camera path of a finished NeRF run to an mp4; an interrupted video is resumed."
# Option -> its smallest and its largest value.
LIMITS = (("frames", 1, 1_000_000), ("factor", 1, 65_536), ("fps", 0.001, 1000))
PATHS = ("spiral", "circle", "turntable", "interpolate", "test")


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Open a NeRF run and write its video."""
    from enerf.config import parser  # needs the extra app

    reader = parser.Parser(prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("run", type=app.path, metavar="RUN", help="folder of a run")
    reader.add_argument(
        "--path",
        metavar="PATH",
        help=f"camera path: {', '.join(PATHS)}, or a file in the format of nerfstudio's camera_path.json, as the "
        "viewer saves it; default: depends on the scene",
    )
    reader.add_argument(
        "--frames", type=app.whole(1_000_000), default=120, help="number of frames (not for --path test or FILE)"
    )
    reader.add_argument("--fps", type=app.finite, help="frames per second; default: those of the file, or 30")
    reader.add_argument("--factor", type=app.finite, default=1.0, help="render at 1/FACTOR of the width and height")
    reader.add_argument("--depth", action="store_true", help="render depth in false colors instead of the image")
    reader.add_argument(
        "--fast",
        action="store_true",
        help="render the run's baked planes (see enerf bake) in the place of the field, ten times as fast; "
        "forward-facing scenes only",
    )
    reader.add_argument("--png", action="store_true", help="also keep the frames as PNG files")
    reader.add_argument("--out", type=app.path, help="output file; default: RUN/video_PATH.mp4")
    reader.add_argument(
        "--datadir", type=app.text_path, default="", help="new path of the scene, if it has moved since training"
    )
    reader.add_argument("--device", default="auto", help="device: auto (cuda if available), cpu, cuda, cuda:1 ...")
    args = reader.parse_args(argv)
    for name, low, high in LIMITS:
        if getattr(args, name) is not None and not low <= getattr(args, name) <= high:
            raise InputError(f"option --{name}: found {shown(getattr(args, name))}, expected {low} to {high}")
    if args.out is not None and args.out.suffix.lower() != ".mp4":
        raise InputError(f"option --out: found {shown(args.out)}, expected a name that ends in .mp4: videos are H.264")

    if args.path is not None and args.path not in PATHS and not app.path(args.path).is_file():
        raise InputError(f"option --path: {shown(args.path)} is neither a file nor one of {', '.join(PATHS)}")

    app.require_existing(args.run)

    from enerf.core import io, ranks

    if args.fast:
        ranks.require_alone("option --fast")
    if ranks.is_first():
        io.remove_leftovers(args.run)
    task, _ = registry.with_part("views", args.run)
    path = args.path
    if path is not None and path not in PATHS:
        path = _cameras(app.path(path), args.run, args.datadir)
    with app.joined(args.device):
        views = task.load("views")(args.run, args.device, args.datadir)
        appearance = {"factor": args.factor, "depth": args.depth, "keep_pngs": args.png, "fast": args.fast}
        print(views.write_video(args.out, path, args.frames, args.fps, **appearance))


def _cameras(file: Path, run: Path, datadir: str) -> "CameraPath":
    """Cameras of a file, in the coordinates of the scene's files."""
    from enerf.datasets.scenes import camera_path_files
    from enerf.engine import checkpoint

    where = datadir or checkpoint.newest(run, ["nerf"])[0]["config"].get("datadir", "")
    return camera_path_files.read(file, app.path(where))
