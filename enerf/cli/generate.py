"""Command-line entry point ``enerf generate``: writes synthetic scenes, photographs, shapes and labelled images.

enerf generate scene --out data/demo --views 20 --width 160 --height 120
enerf generate photographs --out data/phone
enerf generate photographs --out data/phone.mp4 --video
enerf generate shape --out data/shapes
enerf generate labelled --out data/figures --kind cifar
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enerf.cli import app
from enerf.config.options import LARGEST
from enerf.core.errors import InputError

VIEWS, FRAMES = 50, 300  # photographs, or pictures of a video, unless the options say otherwise


def main(argv: list[str] | None = None, *, prog: str = "enerf generate") -> int | None:
    """Write generated data and print where it is; ``argv`` are the words after ``generate``, by default the process's.

    Numpy and torch are imported after the arguments are parsed.

    Raises
    ------
    InputError
        If a number is too small, or the target holds something else or cannot be written.
    """
    options = vars(_parser(prog).parse_args(argv))
    write: Callable[..., None] = options.pop("write")
    options.pop("what")
    write(**options)
    return None


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = app.ArgumentParser(prog=prog, description="Write generated data for demos and tests.")
    choices = parser.add_subparsers(dest="what", required=True, metavar="scene|photographs|shape|labelled")
    _scene_options(choices.add_parser("scene", help="a ray-traced scene, in LLFF's format or as transforms.json"))
    _photographs_options(
        choices.add_parser("photographs", help="photographs or a video as of a phone, without cameras")
    )
    _shape_options(choices.add_parser("shape", help="meshes of shapes with known volumes"))
    _labelled_options(choices.add_parser("labelled", help="labelled images of geometric figures"))
    return parser


def _scene_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write a ray-traced demo scene."
    parser.add_argument("--out", type=app.path, default="data/demo", help="the new folder; default: data/demo")
    for name, default, most, meaning in (
        ("views", 20, 100_000, "number of pictures"),
        ("width", 160, 8192, "width in pixels"),
        ("height", 120, 8192, "height in pixels"),
        ("supersample", 3, 64, "rays per pixel along each axis"),
        ("seed", 0, LARGEST, "seed of the camera poses"),
    ):
        reader = app.whole(most)
        parser.add_argument(f"--{name}", type=reader, default=default, help=f"{meaning}; default: {default}")
    parser.add_argument(
        "--layout",
        choices=("forward", "around"),
        default="forward",
        help="forward: cameras face one direction, in LLFF's format; around: cameras around objects before a distant "
        "background, with depth maps, as transforms.json; default: forward",
    )
    parser.set_defaults(write=_write_scene)


def _photographs_options(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write ray-traced photographs around objects as a phone takes them: with distortion, EXIF data, two exposures, "
        "one blurred, three masks; or a video. The true cameras are written beside them, to NAME_truth.json."
    )
    parser.add_argument(
        "--out", type=app.path, default="data/phone", help="the new folder, or the video; default: data/phone"
    )
    parser.add_argument("--views", type=app.whole(9999), help=f"number of photographs; default: {VIEWS}")
    parser.add_argument("--width", type=app.whole(8192), help="width in pixels; default: 1008, of a video 960")
    parser.add_argument("--seed", type=app.whole(LARGEST), default=0, help="seed of the capture; default: 0")
    parser.add_argument("--video", action="store_true", help="write a video (MP4), not photographs")
    parser.add_argument("--frames", type=app.whole(100_000), help=f"frames of the video; default: {FRAMES}")
    parser.set_defaults(write=_write_photographs)


def _shape_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write meshes of shapes with known volumes."
    parser.add_argument("--out", type=app.path, default="data/shapes", help="the folder; default: data/shapes")
    parser.set_defaults(write=_write_shapes)


def _labelled_options(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write generated images of geometric figures, with labels."
    parser.add_argument("--out", type=app.path, help="the folder; default: data/figures")
    parser.add_argument("folder", type=app.path, nargs="?", help="the folder, as older versions took it")
    parser.add_argument("--kind", choices=("cifar", "idx", "folder"), default="cifar", help="format; default: cifar")
    parser.add_argument("--n_train", type=app.whole(10**9), default=5000, help="training images; default: 5000")
    parser.add_argument("--n_test", type=app.whole(10**9), default=1000, help="test images; default: 1000")
    parser.add_argument("--seed", type=app.whole(LARGEST), default=0, help="random seed; default: 0")
    parser.set_defaults(write=_write_labelled)


def _write_scene(out: Path, layout: str, **settings: Any) -> None:
    from enerf.datasets.scenes import synthetic, synthetic_around

    write = synthetic_around.write_scene if layout == "around" else synthetic.write_scene
    print(write(out, **settings))


def _write_photographs(
    out: Path, views: int | None, width: int | None, seed: int, video: bool, frames: int | None
) -> None:
    if video and views is not None:
        raise InputError(f"option --views: found {views} with --video, expected --frames: a video has no photographs")
    if not video and frames is not None:
        raise InputError(f"option --frames: found {frames} without --video, expected --views, or --video")
    from enerf.datasets.scenes import synthetic_phone, synthetic_photographs

    if video:
        file = out if out.suffix.lower() == ".mp4" else out.with_name(f"{out.name}.mp4")
        width = synthetic_phone.VIDEO_WIDTH if width is None else width
        print(synthetic_photographs.write_video(file, FRAMES if frames is None else frames, width=width, seed=seed))
    else:
        width = synthetic_phone.WIDTH if width is None else width
        print(synthetic_photographs.write_photographs(out, VIEWS if views is None else views, width=width, seed=seed))


def _write_shapes(out: Path) -> None:
    from enerf.geometry import synthetic

    for path in synthetic.write_shapes(out):
        print(path)


def _write_labelled(out: Path | None, folder: Path | None, kind: str, n_train: int, n_test: int, seed: int) -> None:
    from enerf.datasets.labelled import synthetic

    if out and folder:
        raise InputError(f"found two folders, {folder} and --out {out}, expected one")
    writers = {"cifar": synthetic.write_cifar, "idx": synthetic.write_idx, "folder": synthetic.write_folder}
    print(writers[kind](out or folder or Path("data/figures"), n_train, n_test, seed))


if __name__ == "__main__":
    app.run(main)
