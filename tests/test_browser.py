"""Test of the DevTools client that other tests use."""

import pytest

from tests import browser

PAGE = """<!doctype html><title>t</title><link rel="icon" href="data:,"><body style="margin:0;background:rgb(255,0,0)">
<input id="box"><script>
window.seen = [];
for (const kind of ["keydown", "pointermove", "wheel", "touchstart", "click"])
  addEventListener(kind, e => seen.push(kind + (e.key || "")));
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("pages") / "page.html"
    file.write_text(PAGE)
    with browser.launched() as chrome:
        yield chrome.open(file.as_uri(), width=320, height=240)


def test_a_page_is_evaluated_and_photographed(page):
    assert page.evaluate("document.title") == "t"
    assert page.evaluate("new Promise(done => setTimeout(() => done(7), 10))") == 7
    picture = page.screenshot()
    assert picture.shape == (240, 320, 3)
    assert picture[200, 300].tolist() == [255, 0, 0]


def test_events_arrive(page):
    page.drag((10, 100), (60, 100))
    page.wheel(10, 100, 50)
    page.key("ArrowLeft")
    page.click_on("document.getElementById('box')")
    page.write("abc")
    wanted = ("pointermove", "wheel", "keydownArrowLeft", "click")
    page.wait_for(f"{list(wanted)}.every(kind => seen.includes(kind))")
    assert page.evaluate("document.getElementById('box').value") == "abc"


def test_errors_of_a_page_are_recorded(page):
    assert page.messages == []
    page.evaluate("console.error('wrong'); console.log('right'); setTimeout(() => nothing(), 0); 0")
    page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert page.logged == ["right"]
    assert [text.split("\n")[0] for text in page.messages] == [
        "wrong",
        "ReferenceError: nothing is not defined",
    ]
    with pytest.raises(RuntimeError, match="thrown"):
        page.evaluate("(() => { throw new Error('thrown') })()")
