"""Pages that open in a browser from disk or from any static host: one folder, or one file.

A page has a template, a style and scripts of this package (``assets``), numbers in JSON, and binary data. Data are
base64 in scripts, since a page that is opened from disk may not read files in any other way.
"""

import base64
import html
import json
import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.core.errors import InputError
from enerf.reporting import page_files
from enerf.reporting.html_page import printable

INDEX, STYLE, SCRIPT = "index.html", "page.css", "page.js"
_PARTS = "enerf.export.assets"


@dataclass(frozen=True)
class Page:
    """Content of a page.

    Attributes
    ----------
    kind
        Name of its script, ``planes`` or ``mesh``.
    title
        First line of the caption; any text.
    caption
        Further lines; any texts.
    meta
        What the script reads as ``META``: JSON values.
    data
        Binary data by name: ASCII letters, digits and underscores.
    """

    kind: str
    title: str
    caption: tuple[str, ...]
    meta: dict[str, Any]
    data: dict[str, bytes] = field(default_factory=dict)


def single(page: Page) -> str:
    """The whole page as the text of one HTML file."""
    scripts = [_inline(_scripts(page, {})), *(_inline(_call(name, page.data[name])) for name in page.data)]
    scripts.append(_inline(_asset(f"{page.kind}.js")))
    return _html(page, f"<style>\n{_asset(STYLE)}</style>", scripts)


def files(page: Page) -> dict[str, str]:
    """The texts of a folder's files: ``index.html``, style, scripts, and a script for each of the data."""
    names = {name: f"data_{name}.js" for name in page.data}
    made = {names[name]: _call(name, content) for name, content in page.data.items()}
    made |= {STYLE: _asset(STYLE), SCRIPT: _scripts(page, names), f"{page.kind}.js": _asset(f"{page.kind}.js")}
    scripts = [f'<script src="{name}"></script>' for name in (SCRIPT, f"{page.kind}.js")]
    return made | {INDEX: _html(page, f'<link rel="stylesheet" href="{STYLE}">', scripts)}


def check_target(out: Path, *, one_file: bool) -> None:
    """Check before the work that a page can be written to ``out``; nothing is left there.

    Raises
    ------
    InputError
        If it is a folder with other files than a page, a folder instead of a file or the reverse, a file that is no
        earlier page, or cannot be written.
    """
    if one_file:
        page_files.check_file(out, "--out with --single")
        return
    if out.suffix.lower() in (".html", ".htm") and not out.is_dir():
        raise InputError(f"option --out: found {out}, expected the name of a folder, or --single for one file")
    if os.path.lexists(out):
        if not out.is_dir() or out.is_symlink():
            raise InputError(f"{out}: found a file, expected a new folder, or that of an earlier page")
        if any(out.iterdir()) and not _is_page(out):
            raise InputError(f"{out}: found a folder with other files, expected a new one, or that of an earlier page")
    page_files.check_folder(out)


def write(page: Page, out: Path, *, one_file: bool) -> int:
    """Write a page to a folder, or to one file, as a whole; returns its size in bytes.

    An earlier page there is replaced: a folder is made beside its place and renamed. What killed processes left beside
    it is deleted.

    Raises
    ------
    InputError
        As ``check_target``.
    """
    check_target(out, one_file=one_file)
    if one_file:
        text = single(page)
        io.write_atomic(out, text)
        return len(text.encode())
    texts = files(page)
    with io.temporary_path(out) as made, io.os_errors_as_input_errors(out):
        made.mkdir(parents=True)
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        io.replace_folder(made, out)
    io.remove_leftovers(out.absolute().parent, levels=0)
    return sum(len(text.encode()) for text in texts.values())


def _is_page(folder: Path) -> bool:
    """Whether a folder has an earlier page and nothing else."""
    names = {path.name for path in folder.iterdir()}
    own = {INDEX, STYLE, SCRIPT, "planes.js", "mesh.js"}
    others = [name for name in names - own if not (name.startswith("data_") and name.endswith(".js"))]
    return not others and page_files.is_page(folder / INDEX)


def _html(page: Page, style: str, scripts: list[str]) -> str:
    """The template with everything put in; texts are escaped, and without characters that HTML forbids."""
    lines = "".join(f"<span>{html.escape(printable(line))}</span><br>" for line in page.caption if line)
    parts = {
        "title": html.escape(printable(page.title)),
        "caption": lines.removesuffix("<br>"),
        "kind": page.kind,
        "style": style,
        "scripts": "\n".join(scripts),
    }
    pieces = _asset("page.html").split("{{")
    found = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        found += [parts[name], rest]
    return "".join(found)


def _scripts(page: Page, names: dict[str, str]) -> str:
    """The script that all pages have, with ``META``; ``names`` are files of data that are loaded when needed."""
    meta = {**page.meta, **({"files": names} if names else {})}
    text = json.dumps(io.nan_to_none(meta), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f"const META = {text};\n{_asset('page.js')}"


def _call(name: str, content: bytes) -> str:
    return f'enerfData("{name}","{base64.b64encode(content).decode()}");\n'


def _inline(script: str) -> str:
    """A script within a page; none of the package contains its end."""
    return f"<script>\n{script}</script>"


def _asset(name: str) -> str:
    return resources.files(_PARTS.rpartition(".")[0]).joinpath("assets", name).read_text(encoding="utf-8")
