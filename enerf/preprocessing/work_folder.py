"""The folder of a scene that is being made: whether it may be written to, what an earlier call left, and starting over.

``colmap/work.json`` says what the folder is made of and which files were written, so that a call with the same
photographs and options goes on and another one starts over. A folder is finished when it has ``report.json`` and
``transforms.json``, which is written last. Folders that this command has not made are never written to.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from enerf.core import files, io
from enerf.core.errors import InputError
from enerf.datasets.scenes.splits import MADE_BY, REPORT
from enerf.preprocessing.options import ProcessOptions

log = logging.getLogger("enerf")
WORK, RECORD, TRANSFORMS = "colmap", "work.json", "transforms.json"
POINTS, PICTURE, SPARSE = "sparse_pc.ply", "cameras.png", "sparse"
_VERSION = 1  # of what the database holds
_IGNORED = {".writer", ".DS_Store"}
_FREE = ("out", "overwrite", "threads", "mapper", "principal_point")  # options that the database does not depend on
_FREE_OF_ALL = ("out", "overwrite", "threads")


def key(source: Path, names: Iterable[str], options: ProcessOptions, version: str) -> dict[str, str]:
    """What a scene is made of: hashes of the files' names, sizes and times, and of the options.

    Parameters
    ----------
    source
        Folder of the photographs, or the folder of a video.
    names
        Files in it that are read, masks included.
    options
        The options.
    version
        Version of pycolmap.
    """
    values = vars(options)
    database = {name: value for name, value in values.items() if name not in _FREE}
    scene = {name: value for name, value in values.items() if name not in _FREE_OF_ALL}
    return {
        "files": files.stamp(source, names),
        "options": _hash({**database, "version": _VERSION, "pycolmap": version}),
        "all_options": _hash(scene),
    }


def require_writable(scene: Path, source: Path) -> None:
    """Check that a scene can be written: it is not the photographs' folder nor inside of it, and not another's folder.

    Raises
    ------
    InputError
        If it is.
    """
    if not str(scene) or str(scene) == ".":
        raise InputError("option --out: found nothing, expected the new folder of the scene, such as data/garden")
    inner, outer = Path(os.path.realpath(scene)), Path(os.path.realpath(source))
    if outer.is_dir() and inner.is_relative_to(outer):
        raise InputError(f"option --out: found {scene}, a folder inside of {source}, expected one outside of it")
    if outer.is_relative_to(inner) and inner.is_dir():
        raise InputError(
            f"option --out: found {scene}, which contains the input {source}, expected a new folder beside it"
        )
    if os.path.lexists(scene) and not scene.is_dir():
        raise InputError(f"option --out: found {scene}, which is no folder, expected a new folder")
    if scene.is_dir() and not is_ours(scene):
        listed = sorted(set(os.listdir(scene)) - _IGNORED)
        if listed:
            raise InputError(
                f"option --out: found {scene} with {listed[0]}, which this command has not made, expected a new folder"
            )


def is_ours(scene: Path) -> bool:
    """Whether this command has made a folder, or begun to."""
    return any(_content(path).get("made_by") == MADE_BY for path in (scene / REPORT, scene / WORK / RECORD))


def is_finished(scene: Path) -> bool:
    """Whether a folder that this command has made is complete."""
    return _content(scene / REPORT).get("made_by") == MADE_BY and (scene / TRANSFORMS).is_file()


def begin(scene: Path, wanted: dict[str, str], *, overwrite: bool) -> bool:
    """Prepare a folder for work; returns whether it is finished already, made of the same.

    What was begun with other photographs or options is deleted, with one line in the log; so is a finished scene if
    ``overwrite``.

    Raises
    ------
    InputError
        If the folder is finished, made of something else, and ``overwrite`` is false.
    """
    found = _content(scene / WORK / RECORD) or _of_report(scene)
    changed = [name for name in ("files", "options") if found.get("key", {}).get(name) != wanted[name]]
    same = not changed and found["key"].get("all_options") == wanted["all_options"]
    what = {"files": "photographs", "options": "options"}
    if is_finished(scene):
        if same and not overwrite:
            return True
        if not overwrite:
            reason = " and ".join(what[name] for name in changed) or "options"
            raise InputError(
                f"{scene}: found a scene that was made of other {reason}, expected another folder for the new one "
                "(--out, or --scene with --auto), or `enerf process` with --overwrite to replace it"
            )
        _remove_results(scene)
    if found and not changed:
        log.info("%s: going on with what an earlier call has done", scene)
    elif found:
        log.info("%s: found other %s than before, starting over", scene, " and ".join(what[n] for n in changed))
        _remove_all(scene, found)
    _record(scene, {"made_by": MADE_BY, "key": wanted, "files": [] if changed else found["files"]})
    return False


def _of_report(scene: Path) -> dict[str, Any]:
    """Record of a finished scene whose folder of work has been deleted; empty if it is not finished."""
    report = _content(scene / REPORT)
    if report.get("made_by") != MADE_BY:
        return {}
    names = [*report.get("registered", ()), *report.get("not_registered", ())]
    written = [f"{part}/{name}{end}" for name in names for part, end in (("images", ""), ("masks", ".png"))]
    return {"key": report.get("key", {}), "files": written}


def record_files(scene: Path, names: Iterable[str]) -> None:
    """Record files of the scene that will be written, so that starting over deletes them and no others."""
    found = _content(scene / WORK / RECORD)
    _record(scene, {**found, "files": sorted({*found.get("files", ()), *names})})


def _record(scene: Path, content: dict[str, Any]) -> None:
    io.write_json(scene / WORK / RECORD, content)


def _remove_results(scene: Path) -> None:
    """Delete what is written at the end, what makes a folder a scene first."""
    for name in (TRANSFORMS, REPORT, POINTS, PICTURE):
        with suppress(OSError):
            (scene / name).unlink()
    shutil.rmtree(scene / SPARSE, ignore_errors=True)


def _remove_all(scene: Path, found: dict[str, Any]) -> None:
    """Delete results, work, and the recorded files, with folders that become empty."""
    _remove_results(scene)
    for name in found.get("files", ()):
        path = scene / files.inner_name(str(name), f"{scene / WORK / RECORD}: a recorded file")
        with suppress(OSError):
            path.unlink()
        for folder in path.parents:
            if folder == scene:
                break
            with suppress(OSError):
                folder.rmdir()
    for path in list((scene / WORK).iterdir()) if (scene / WORK).is_dir() else ():
        if path.name == RECORD:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()


def _content(path: Path) -> dict[str, Any]:
    """Content of a JSON file; empty if it is missing or damaged."""
    try:
        return io.read_object(path)
    except InputError:
        return {}


def _hash(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
