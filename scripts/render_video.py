"""Render a camera path of a finished run to an mp4; an interrupted video goes on where it stopped.

python scripts/render_video.py logs/fern --path spiral --frames 120 [--depth] [--factor 2]
"""

import argparse
from pathlib import Path

from enerf.cli import app
from enerf.config import parser as config_parser
from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_paths
from enerf.tasks.nerf import setup as nerf_setup


def main() -> None:
    """Open the run, bake its weights, render."""
    parser = config_parser.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder")
    parser.add_argument("--path", choices=camera_paths.KINDS, help="camera path; default: what suits the scene")
    parser.add_argument("--frames", type=int, default=nerf_setup.VIDEO_FRAMES, help="frames (not for --path test)")
    parser.add_argument("--fps", type=float, default=nerf_setup.VIDEO_FPS, help="frames a second")
    parser.add_argument("--factor", type=float, default=1.0, help="render that many times smaller")
    parser.add_argument("--depth", action="store_true", help="depth in colours instead of the picture")
    parser.add_argument("--png", action="store_true", help="keep the frames as PNG too")
    parser.add_argument("--out", type=Path, help="the mp4; default: RUN/video_PATH.mp4")
    parser.add_argument("--datadir", default="", help="the scene, if it has moved since training")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    args = parser.parse_args()
    if args.frames < 1 or not args.factor >= 1 or not args.fps > 0:
        raise InputError("options --frames, --factor and --fps: expected at least 1, at least 1 and more than 0")
    run = nerf_setup.open_run(args.run, args.device, args.datadir)
    kind = args.path or camera_paths.default_kind(run.scene)
    out = args.out or args.run / f"video_{kind}{'_depth' if args.depth else ''}.mp4"
    look = {"factor": args.factor, "depth": args.depth, "keep_pngs": args.png}
    print(nerf_setup.write_video(run, out, kind, args.frames, args.fps, **look))


if __name__ == "__main__":
    app.enter(main)
