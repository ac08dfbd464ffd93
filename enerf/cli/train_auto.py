"""``enerf train PHOTOS --auto``: cameras, the choice of options, and training, in one command."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from enerf.cli import app
from enerf.config.options import option
from enerf.core.errors import InputError, shown

log = logging.getLogger("enerf")
_FORMS = ("--auto", "--auto=True", "--auto=true")
FLAG, SCENE, CONFIG = "--auto", "--scene", "config"
USAGE = "enerf train PHOTOS --auto [--scene FOLDER] [--OPTION VALUE]"
# How the cameras stand, and whether there is an object without background -> file in configs/
PRESETS = {
    ("forward", False): "fast/forward.txt",
    ("forward", True): "fast/forward.txt",
    ("around", False): "fast/unbounded.txt",
    ("around", True): "fast/object.txt",
    ("free", False): "fast/unbounded.txt",
    ("free", True): "fast/object.txt",
}


@dataclass(frozen=True)
class AutoOptions:
    """Cameras and options by themselves."""

    auto: bool = option(
        False,
        "compute the cameras of the photographs or the video that the first argument names, as enerf process does, or "
        "read the scene there; choose the file of options by how the cameras stand; train. On the command line only",
        affects="neutral",
    )
    scene: str = option(
        "",
        "with --auto: folder of the scene that is made; empty: beside the photographs, PHOTOS_scene",
        affects="neutral",
        is_path=True,
    )

    def check(self) -> None:
        """Check that neither is left of arguments that ``arguments`` has not read.

        Raises
        ------
        InputError
            If one is.
        """
        if self.auto:
            raise InputError(
                f"option {FLAG}: found it in a configuration file, expected it on the command line: {USAGE}"
            )
        if self.scene:
            raise InputError(f"option {SCENE}: found {shown(self.scene)} without {FLAG}, expected both: {USAGE}")


def is_wanted(argv: Sequence[str]) -> bool:
    """Whether arguments ask for it."""
    return any(each in _FORMS for each in argv)


def arguments(argv: Sequence[str]) -> list[str]:
    """Arguments of a training, from those with ``--auto``: photographs, a video or a scene first.

    The cameras of photographs and videos are computed, once, into the folder ``--scene``, by default beside the input.
    Options that the user gives, in a configuration file too, take precedence over those that are chosen. They are read
    first, so that a mistake is told before the cameras are computed.

    Raises
    ------
    InputError
        If the input is not the first argument or cannot be read, an option is wrong, or no cameras can be computed.
    """
    source, rest = _source(argv)
    rest, scene = _without(rest, SCENE)
    given = _checked(rest)
    app.require_existing(source, expected="a folder of photographs, a video or a scene")
    is_scene = _is_scene(source)
    if is_scene and scene:
        raise InputError(f"option {SCENE}: found it with {source}, which is a scene, expected photographs or a video")
    folder = source if is_scene else _processed(source, scene)
    chosen = [] if CONFIG in given else [f"--{CONFIG}", _preset(folder)]
    chosen += [] if "exposure" in given else _exposure(folder)
    chosen += [] if "expname" in given else ["--expname", folder.resolve().name]
    for name, value in (("dataset_type", "auto"), ("factor", "-1")):
        chosen += [] if name in given else [f"--{name}", value]
    return [*chosen, *rest, "--datadir", str(folder)]


def _checked(rest: list[str]) -> set[str]:
    """Names of the options that the user gives, after a trial of reading them; ``--help`` prints the help and ends."""
    from enerf.config import parser
    from enerf.tasks.nerf.config import NerfConfig

    named = {each[2:].split("=", 1)[0] for each in rest if each.startswith("--")}
    trial = rest if CONFIG in named else [f"--{CONFIG}", PRESETS["free", False], *rest]
    parser.parse(NerfConfig, trial, extra=(AutoOptions,), prog="enerf train")
    if "datadir" in named:
        raise InputError(
            f"option --datadir: found it with {FLAG}, expected the scene or the photographs first: {USAGE}"
        )
    return named | (parser.names_in_file(rest) - {"datadir"})


def require_option(argv: Sequence[str]) -> None:
    """Check that the first argument of a training without ``--auto`` is an option, not a scene or photographs.

    Raises
    ------
    InputError
        If it is something that exists.
    """
    if argv and not argv[0].startswith("-") and app.path(argv[0]).exists():
        raise InputError(
            f"found {shown(argv[0])} where an option was expected: give a scene by --datadir {argv[0]}, photographs, a "
            f"video or a scene by {USAGE}"
        )


def _source(argv: Sequence[str]) -> tuple[Path, list[str]]:
    """The input, and the other arguments without the flag."""
    if argv[0].startswith("-"):
        raise InputError(
            f"option --auto: found {shown(argv[0])} as the first argument, expected the folder of photographs, the "
            f"video or the scene there: {USAGE}"
        )
    return app.path(argv[0]), [each for each in argv[1:] if each not in _FORMS]


def _without(rest: list[str], option: str) -> tuple[list[str], str]:
    """Arguments without an option, and its value, empty if it is not given."""
    for i, each in enumerate(rest):
        if each == option:
            if i + 1 == len(rest):
                raise InputError(f"option {option}: found no value, expected a folder")
            return rest[:i] + rest[i + 2 :], rest[i + 1]
        if each.startswith(f"{option}="):
            return rest[:i] + rest[i + 1 :], each.split("=", 1)[1]
    return rest, ""


def _is_scene(source: Path) -> bool:
    from enerf.datasets.scenes import formats

    return source.is_dir() and any(each.detect(source) for each in formats.FORMATS.values())


def _processed(source: Path, scene: str) -> Path:
    """Folder of the scene that is made of photographs or a video, unless it is made already."""
    from enerf.preprocessing import process, scene_report
    from enerf.preprocessing.options import ProcessOptions

    absolute = source.absolute()
    folder = (
        app.path(scene)
        if scene
        else absolute.with_name(f"{absolute.stem if source.is_file() else absolute.name}_scene")
    )
    report = process.process(source, ProcessOptions(out=str(folder)))
    for line in scene_report.summary(report, folder).splitlines():
        log.info("%s", line)
    return folder


def _preset(folder: Path) -> str:
    """Name of the file of options for a scene, by how its cameras stand and whether its background is transparent."""
    from enerf.core import images
    from enerf.datasets.scenes import formats, normalization
    from enerf.datasets.scenes.settings import SceneSettings
    from enerf.geometry import colored_points

    name, _ = formats.detect(folder)
    posed = formats.posed(name, folder, SceneSettings(read_points=colored_points.read_scene))
    layout = normalization.layout_of(posed.c2w)
    is_object = images.has_transparency(images.read(posed.files[0]))
    chosen = PRESETS[layout, is_object]
    log.info("%s: cameras stand %s%s: options of %s", folder, layout, ", transparent background" * is_object, chosen)
    return chosen


def _exposure(folder: Path) -> list[str]:
    """Color maps of the training views if the photographs differ in brightness."""
    from enerf.core import io
    from enerf.datasets.scenes import splits
    from enerf.preprocessing import brightness

    path = folder / splits.REPORT
    gains = list(io.read_object(path).get("log_gains", {}).values()) if splits.cameras_of(folder) else []
    if not gains or (uneven := brightness.spread(gains)) < brightness.UNEVEN:
        return []
    log.info(
        "%s: the photographs differ in brightness, by %.0f %% at the same points: --exposure gain", folder, 100 * uneven
    )
    return ["--exposure", "gain"]
