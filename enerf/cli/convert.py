"""Conversion of scenes to another format: ``enerf convert``."""

import logging
from collections.abc import Sequence

from enerf.cli import app
from enerf.core.errors import InputError
from enerf.experiments.options import ConvertOptions

DESCRIPTION = "Write a scene of photographs and cameras in another format, with copies of its photographs."
log = logging.getLogger("enerf")


def main(argv: Sequence[str] | None = None, *, prog: str | None = None, description: str = DESCRIPTION) -> None:
    """Read a scene, write it in another format, and print its new folder.

    Raises
    ------
    InputError
        If the scene is damaged, the format cannot express it, or the folder cannot be written.
    """
    from enerf.config import parser  # needs the extra app

    reader = parser.make_parser([ConvertOptions], description, prog=prog)
    reader.usage = "%(prog)s SCENE --to FORMAT --out FOLDER [--OPTION VALUE] ..."
    reader.add_argument("scene", type=app.path, metavar="SCENE", help="folder of a scene")
    given = vars(reader.parse_args(argv))
    chosen, scene = parser.read_table(ConvertOptions, given), given["scene"]
    if not chosen.out:
        raise InputError("option --out: found nothing, expected a new folder")
    app.require_existing(scene, expected="the folder of a scene")

    from enerf.core import io
    from enerf.datasets.scenes import conversion, formats
    from enerf.datasets.scenes.settings import SceneSettings
    from enerf.geometry import colored_points

    name = chosen.dataset_type
    if name == "auto":
        name, shown = formats.detect(scene)
        log.info("%s: format %s, by %s", scene, name, shown)
    axes = None if chosen.pose_axes == "format" else chosen.pose_axes
    posed = formats.posed(name, scene, SceneSettings(pose_axes=axes, read_points=colored_points.read_scene))
    out = app.path(chosen.out)
    if out.parent.is_dir():
        io.remove_leftovers(out.parent, levels=0)
    settings = conversion.ConversionSettings(
        target=chosen.to,
        dialect=chosen.dialect,
        lossy=chosen.lossy,
        link=chosen.link,
        near=chosen.near,
        far=chosen.far,
        write_points=colored_points.write_scene,
    )
    conversion.convert(posed, out, settings)
    print(out)
