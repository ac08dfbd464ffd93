"""The page: everything is escaped, nothing is requested, colors have contrast."""

import re
from html.parser import HTMLParser

import pytest

from enerf.reporting import html_page
from enerf.reporting.charts import Series, chart
from enerf.reporting.html_page import Charts, Command, Embedded, Page, Section, Shown, Table, Video, View

ATTACKS = (
    "<script>window.hacked=1</script>",
    "\"><img src=x onerror='window.hacked=1'>",
    "' onmouseover='window.hacked=1' x='",
    "</style><script>window.hacked=1</script>",
    "{{ 7 * 7 }} {% raw %}",
    "javascript:window.hacked=1",
    "data:\x00\udcff,<script>window.hacked=1</script>",
    "]]><!-- \x00 \x1b \ud800 \u202e",
)
ALLOWED_SCRIPTS = 1


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def page_of(text: str) -> Page:
    """A page that shows a text wherever one can be shown."""
    drawn = chart(text, text, text, [Series(text, text, [(0, 1.0), (1, 2.0)])], [text])
    table = Table(text, [[text, text], [text, text]], text)
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
    section = Section(
        kind="nerf",
        heading=text,
        tables=[table],
        comparability=[text],
        published_note=text,
        charts=[Charts(text, [drawn], [drawn], text, [text, text])],
        views=[View(text, [Shown(text, text, pixel, "reference"), Shown(text, text, pixel, "picture")], 4, 3)],
        views_note=text,
        videos=[Video(text, None, text)],
        differences=table,
        options=[table],
        environment=table,
        commands=[Command(text, text), Command(text, text, True)],
        commands_note=text,
    )
    return Page(text, text, text, [section], [text], [], [(text, text)])


@pytest.mark.parametrize("attack", ATTACKS, ids=range(len(ATTACKS)))
def test_a_hostile_text_is_shown_and_adds_no_element(attack):
    harmless, hostile = (Reader(html_page.render(page_of(text))) for text in ("a", attack))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]
    names = [[sorted(attributes.keys() - {"class"}) for _, attributes in page.tags] for page in (hostile, harmless)]
    assert names[0] == names[1]
    assert sum(html_page.printable(attack).strip() in text for text in hostile.texts) > 10
    html_page.render(page_of(attack)).encode("utf-8")


def test_the_page_names_no_other_address():
    found = Reader(html_page.render(page_of("a")))
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"@import|url\(", "".join(found.texts))


def test_the_policy_allows_the_script_of_the_page_alone():
    found = Reader(html_page.render(page_of("a")))
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)
    assert sum(tag == "script" for tag, _ in found.tags) == ALLOWED_SCRIPTS


def test_an_embedded_page_stands_in_a_sandbox():
    inner = '<!doctype html><script>parent.document.body.remove()</script>"'
    page = page_of("a")
    embedded = [Embedded("scene.html", inner), Embedded('">', inner)]
    found = Reader(html_page.render(Page("a", "", "", page.sections, embedded=embedded)))
    frames = [attributes for tag, attributes in found.tags if tag == "iframe"]
    assert [frame["srcdoc"] for frame in frames] == [inner, inner]
    assert not any("allow-same-origin" in frame["sandbox"] for frame in frames)


def contrast(a: str, b: str) -> float:
    """Ratio of the luminances of two colors by WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colors_have_the_contrast_of_wcag_in_both_schemes():
    style = html_page._resource("report.css").partition("@media print")[0]
    schemes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in style.split("prefers-color-scheme")]
    assert len(schemes) == 2
    for colors in schemes:
        for text in ("ink", "soft", "accent"):
            for behind in ("paper", "panel", "published"):
                assert contrast(colors[text], colors[behind]) >= 4.5, (text, behind)
        assert contrast(colors["warn"], colors["warn-panel"]) >= 4.5
        for i in range(8):
            assert contrast(colors[f"c{i}"], colors["panel"]) >= 3, i
