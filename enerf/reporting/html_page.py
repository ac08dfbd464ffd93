"""One self-contained HTML page: tables, inline SVG charts, pictures, videos; nothing is requested from elsewhere.

All texts are escaped by the template engine, and the page's content security policy allows no script but its own.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from enerf.reporting.charts import COLORS, Chart

TEMPLATES = Path(__file__).with_name("templates")
_NUMBER = re.compile(r"[-−+~]?[0-9][0-9,.]*(e[-+]?[0-9]+)?( ± [0-9.]+)?( ×[0-9.e+-]+)?|–|")
_UNUSUAL = re.compile(r"[^\t\n\r\x20-\x7e]")
_SELECT_MOST = 40  # pictures of a view that can be chosen for the comparison


@dataclass(frozen=True)
class Table:
    """A table: rows of cells, the header first; rows that begin with ``published`` are set apart."""

    caption: str
    rows: Sequence[Sequence[str]]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Whether a column has numbers only, by column.

        >>> Table("", [["a", "b"], ["x", "17.1 ± 0.2"], ["2", "–"]]).numeric
        [False, True]
        """
        return [all(_NUMBER.fullmatch(row[i]) for row in self.rows[1:]) for i in range(len(self.rows[0]))]


@dataclass(frozen=True)
class Charts:
    """Charts with a heading; ``details`` are folded in."""

    heading: str
    charts: Sequence[Chart]
    details: Sequence[Chart] = ()
    note: str = ""
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Shown:
    """A picture as data URI: its label, caption, and ``kind``: reference, picture or error."""

    label: str
    caption: str
    uri: str
    kind: str


@dataclass(frozen=True)
class View:
    """Pictures of one view by several runs, of one width and height in pixels."""

    name: str
    pictures: Sequence[Shown]
    width: int
    height: int


@dataclass(frozen=True)
class Video:
    """A video as data URI, or a sentence in its place."""

    name: str
    uri: str | None
    note: str


@dataclass(frozen=True)
class Command:
    """A command, and what it does; one of a part of another command is folded in."""

    name: str
    text: str
    is_part: bool = False


@dataclass(frozen=True)
class Section:
    """All that is shown of the runs of one task."""

    kind: str
    heading: str
    tables: Sequence[Table] = ()
    comparability: Sequence[str] = ()
    published_note: str = ""
    charts: Sequence[Charts] = ()
    views: Sequence[View] = ()
    views_note: str = ""
    videos: Sequence[Video] = ()
    differences: Table | None = None
    options: Sequence[Table] = ()
    environment: Table | None = None
    commands: Sequence[Command] = ()
    commands_note: str = ""


@dataclass(frozen=True)
class Embedded:
    """An interactive page with all that it shows, as text, and its name."""

    name: str
    text: str


@dataclass(frozen=True)
class Page:
    """The content of a report."""

    title: str
    created: str
    version: str
    sections: Sequence[Section]
    notes: Sequence[str] = ()
    embedded: Sequence[Embedded] = ()
    environment: Sequence[tuple[str, str]] = field(default_factory=list)


def render(page: Page) -> str:
    """Return the HTML text of a page.

    Characters that HTML forbids (control characters, halves of surrogate pairs) are replaced by U+FFFD, and characters
    that change the direction of text are left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    engine = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters["color"] = lambda i: i % COLORS
    style, script = _resource("report.css"), _resource("report.js")
    policy = security_policy(script, embeds=bool(page.embedded))
    return engine.get_template("report.html.jinja").render(
        page=_clean(page),
        style=style,
        script=script,
        policy=policy,
        most=_SELECT_MOST,
    )


def security_policy(script: str, *, embeds: bool) -> str:
    """Return the content security policy: nothing is loaded, only the page's own script runs.

    A page that is embedded inherits the policy of this one, so that its scripts have to be allowed; it is shown in a
    frame without access to this page.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = "'unsafe-inline' 'wasm-unsafe-eval' blob: data:" if embeds else f"'sha256-{digest}'"
    more = "; connect-src data: blob:; worker-src blob: data:; frame-src 'self' data: blob:; font-src data:"
    return (
        f"default-src 'none'; img-src data:{' blob:' if embeds else ''}; media-src data:; style-src 'unsafe-inline'; "
        f"script-src {scripts}; base-uri 'none'; form-action 'none'{more if embeds else ''}"
    )


def printable(text: str) -> str:
    r"""Return a text with the characters replaced that have no place in HTML.

    >>> ascii(printable("a\x00b\tc")), ascii(printable("\udcff")), printable("x\u202ey")
    ("'a\\ufffdb\\tc'", "'\\ufffd'", 'xy')
    """
    return _UNUSUAL.sub(lambda found: _replaced(found[0]), text)


def _replaced(letter: str) -> str:
    if letter.isprintable():
        return letter
    kind = unicodedata.category(letter)
    if kind == "Cf" and unicodedata.bidirectional(letter) not in ("BN", "AL", "L", ""):
        return ""
    return "\ufffd" if kind in ("Cc", "Cs", "Cn", "Co") else letter


def _clean(value: Any) -> Any:
    """Return a value with all of its texts made printable, but data URIs, which this package makes."""
    if isinstance(value, str):
        return printable(value)
    if is_dataclass(value) and not isinstance(value, type):
        texts = [item.name for item in fields(value) if item.name != "uri"]
        return replace(value, **{name: _clean(getattr(value, name)) for name in texts})
    if isinstance(value, list | tuple):
        return type(value)(_clean(each) for each in value)
    return value


@cache
def _resource(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()
