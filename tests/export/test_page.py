"""Pages as files: texts are escaped, folders are replaced as a whole, and nothing else is touched."""

import json
import os
import re
import subprocess
import sys

import pytest

from enerf.core.errors import InputError
from enerf.export import page
from enerf.export.page import Page

HOSTILE = "</script><script>alert(1)</script> & \"quoted\" 'single' {{title}} \u2028 <img src=x onerror=alert(1)>"


def example(title: str = "fern") -> Page:
    return Page("mesh", title, ("one", title), {"meshes": [{"name": title}]}, {"mesh_0": b"\x00\xffdata"})


def test_texts_are_escaped_wherever_they_are():
    text = page.single(example(HOSTILE))
    assert "<img src=x" not in text
    assert text.count("</script>") == text.count("<script>") == 3
    assert "&lt;/script&gt;" in text
    meta = re.search(r"^const META = (.*);$", text, re.MULTILINE)
    assert json.loads(meta[1])["meshes"][0]["name"] == HOSTILE


def test_a_title_of_any_bytes_is_written(tmp_path):
    for one_file, name in ((True, "page.html"), (False, "page")):
        page.write(example("a\udcff\x00b"), tmp_path / name, one_file=one_file)
    assert "<b>a\ufffd\ufffdb</b>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_requests_nothing_from_elsewhere():
    everything = [page.single(example()), *page.files(example()).values()]
    assert not [text for text in everything if re.search(r"https?://|//cdn|@import", text)]


def test_the_folder_loads_its_files_by_name(tmp_path):
    size = page.write(example(), tmp_path / "web", one_file=False)
    names = {path.name for path in (tmp_path / "web").iterdir()}
    assert names == {"index.html", "page.css", "page.js", "mesh.js", "data_mesh_0.js"}
    assert size == sum(path.stat().st_size for path in (tmp_path / "web").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


def test_an_earlier_page_is_replaced_whole(tmp_path):
    first = Page("planes", "old", (), {}, {"rgb_0": b"1", "rgb_1": b"2"})
    page.write(first, tmp_path / "web", one_file=False)
    page.write(example("new"), tmp_path / "web", one_file=False)
    assert not (tmp_path / "web" / "data_rgb_1.js").exists()
    assert "new" in (tmp_path / "web" / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


def test_a_failed_exchange_leaves_the_earlier_page(tmp_path, monkeypatch):
    page.write(example("old"), tmp_path / "web", one_file=False)
    rename, calls = os.rename, []
    monkeypatch.setattr(page.io, "_exchanged", lambda a, b: False)  # as on file systems that cannot

    def fails_second(a, b):
        calls.append(a)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        rename(a, b)

    monkeypatch.setattr(os, "rename", fails_second)
    with pytest.raises(InputError, match="No space left"):
        page.write(example("new"), tmp_path / "web", one_file=False)
    assert "old" in (tmp_path / "web" / "index.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


def test_what_a_killed_export_left_beside_the_page_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".{page.io.host()}-{gone.pid}-0123456789ab.tmp").mkdir()
    page.write(example(), tmp_path / "web", one_file=False)
    assert [path.name for path in tmp_path.iterdir()] == ["web"]


@pytest.mark.parametrize("name", ["notes.txt", "index.html", "data_x.js"])
def test_a_folder_with_other_files_is_refused(tmp_path, name):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / name).write_text("mine")
    with pytest.raises(InputError, match="other files"):
        page.write(example(), tmp_path / "web", one_file=False)
    assert (tmp_path / "web" / name).read_text() == "mine"


def test_a_file_where_a_folder_is_expected_is_refused_and_the_reverse(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="found a file"):
        page.check_target(tmp_path / "file", one_file=False)
    with pytest.raises(InputError, match="found a folder"):
        page.check_target(tmp_path, one_file=True)
    with pytest.raises(InputError, match=r"\.html"):
        page.check_target(tmp_path / "page.pdf", one_file=True)
    with pytest.raises(InputError, match="--single for one file"):
        page.check_target(tmp_path / "page.html", one_file=False)


def test_a_file_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "notes.html").write_text("<html>mine</html>")
    with pytest.raises(InputError, match="has not written"):
        page.write(example(), tmp_path / "notes.html", one_file=True)
    assert (tmp_path / "notes.html").read_text() == "<html>mine</html>"
    for title in ("first", "second"):
        page.write(example(title), tmp_path / "page.html", one_file=True)
    assert "second" in (tmp_path / "page.html").read_text()
