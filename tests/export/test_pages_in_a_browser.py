"""Pages in a browser with software GL: pictures are those of the Python renderer, and controls work."""

import functools
import html
import http.server
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.core.types import Camera
from enerf.datasets.scenes import rays
from enerf.export import mesh_code, mesh_page, page, planes_page
from enerf.export.mesh_page import NamedMesh
from tests import browser
from tests.export.stacks import forward_scene, large
from tests.rendering.planes.stacks import POSE

TITLE = "<b>fern</b> & </script><script>fail()</script>"
VIEWPOINTS = ("{x: -0.06, y: 0.04, z: 0, zoom: 1}", "{x: 0.07, y: -0.05, z: 0, lookX: 0.1, lookY: -0.05, zoom: 1.7}")
SIZE = (360, 300)


@pytest.fixture(scope="module")
def chrome():
    with browser.launched() as found:
        yield found


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    """Folder with a page as a folder and as a file, and the stack that they show: two pages of textures."""
    stack = large(11, 19, 21)
    camera = Camera(*SIZE, 300.0, 300.0, SIZE[0] / 2, SIZE[1] / 2)
    scene = forward_scene(camera)
    thin = planes_page.thinned(stack, scene, 9.0)
    assert not thin.drawn.all()
    encoded = planes_page.encode(thin)
    assert len(encoded.rgb) == 2
    made = planes_page.page(encoded, camera, scene.c2w, TITLE, ("a caption",))
    folder = tmp_path_factory.mktemp("planes page")
    page.write(made, folder / "web", one_file=False)
    page.write(made, folder / "web.html", one_file=True)
    return folder, encoded.shown


def opened(chrome, file: Path, flags: str = "still", size: tuple[int, int] = SIZE, **more) -> browser.Page:
    found = chrome.open(f"{file.as_uri()}#{flags}", width=size[0], height=size[1], **more)
    found.wait_for("window.enerf && document.getElementById('message').textContent === ''")
    return found


def settled(found: browser.Page, state: str | None = None) -> np.ndarray:
    """Picture of a page in [0, 1], after it was drawn where the camera goes."""
    if state is not None:
        found.evaluate(f"enerf.go({state})")
    found.evaluate(
        "new Promise(done => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 400))"
    )
    return found.screenshot() / 255


def rendered(stack, camera: dict) -> np.ndarray:
    """What the reference renderer shows from the page's camera."""
    pinhole = Camera(*(camera[name] for name in ("width", "height", "fx", "fy", "cx", "cy")))
    pose = torch.cat([POSE[:, :3], torch.tensor(camera["position"], dtype=torch.float64)[:, None]], 1)
    picture = planes_page.render(stack, rays.of_image(pinhole, pose, 0, 1)).rgb
    return picture.reshape(pinhole.height, pinhole.width, 3).numpy()


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square(a - b).mean(), 1e-12)))


@pytest.mark.parametrize(("flags", "least"), [("bare,still", 45.0), ("bare,still,8bit", 42.0)])
def test_the_picture_is_that_of_the_decoded_textures(chrome, planes, flags, least):
    folder, stack = planes
    found = opened(chrome, folder / "web" / "index.html", flags)
    assert found.evaluate("enerf.halves") == ("8bit" not in flags)
    pictures = [settled(found, state) for state in VIEWPOINTS]
    for state, picture in zip(VIEWPOINTS, pictures, strict=True):
        found.evaluate(f"enerf.go({state})")
        assert decibels(picture, rendered(stack, found.evaluate("enerf.camera()"))) >= least
    assert decibels(*pictures) < 35
    assert found.messages == []
    inside = [url for url in found.requests if url.startswith((folder.as_uri(), "data:", "blob:"))]
    assert inside == found.requests
    found.close()


def test_one_file_shows_the_same_and_requests_nothing(chrome, planes):
    folder, stack = planes
    found = opened(chrome, folder / "web.html", "bare,still")
    picture = settled(found, VIEWPOINTS[0])
    assert decibels(picture, rendered(stack, found.evaluate("enerf.camera()"))) >= 45
    assert [url for url in found.requests if not url.startswith(("data:", "blob:"))] == [
        f"{(folder / 'web.html').as_uri()}"
    ]
    assert found.messages == []
    found.close()


def test_a_static_host_serves_the_folder(chrome, planes):
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *words: None})
    handler = functools.partial(quiet, directory=str(planes[0] / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = chrome.open(f"http://127.0.0.1:{server.server_port}/#bare,still", width=200, height=160)
        found.wait_for("window.enerf")
        assert settled(found).std() > 0.01
        assert found.messages == []
        found.close()
        server.shutdown()


def test_names_are_shown_as_they_are(chrome, planes):
    found = opened(chrome, planes[0] / "web.html")
    assert found.evaluate("document.title") == TITLE
    assert found.evaluate("document.querySelector('#caption b').textContent") == TITLE
    assert found.evaluate("document.querySelector('#caption').textContent").endswith("a caption")
    found.close()


def test_pointer_wheel_and_keys_move_the_camera_within_its_limits(chrome, planes):
    found = opened(chrome, planes[0] / "web.html")
    start = found.evaluate("enerf.camera()")
    found.drag((180, 150), (120, 150))
    found.wait_for(f"enerf.camera().position[0] > {start['position'][0]} + 0.005")
    for _ in range(4):
        found.drag((300, 150), (20, 150))
    found.wait_for("Math.abs(enerf.camera().position[0] - 0.1) < 1e-6")  # the cameras' outermost
    found.key("ArrowLeft", seconds=0.3)
    found.wait_for("enerf.camera().position[0] < 0.099")
    found.wheel(180, 150, -300)
    found.wait_for(f"enerf.camera().fx > 1.5 * {start['fx']}")
    found.key("r")
    found.wait_for(f"Math.abs(enerf.camera().fx - {start['fx']}) < 1e-3 && Math.abs(enerf.camera().position[0]) < 1e-4")
    found.wheel(180, 150, 3000)
    assert settled(found).shape == (SIZE[1], SIZE[0], 3)
    assert abs(found.evaluate("enerf.camera().fx") - start["fx"]) < 1e-3
    assert found.messages == []
    found.close()


def test_keys_move_the_camera_after_a_button_was_clicked(chrome, planes):
    found = opened(chrome, planes[0] / "web.html")
    found.click_on("[...document.querySelectorAll('#tools button')].find(each => each.textContent === 'Depth')")
    assert found.evaluate("document.activeElement.textContent") == "Depth"
    found.key("ArrowRight", seconds=0.3)
    found.wait_for("enerf.camera().position[0] > 0.005")
    found.key("r")
    found.wait_for("Math.abs(enerf.camera().position[0]) < 1e-4")
    found.key(" ")  # presses the button
    assert found.evaluate("document.activeElement.getAttribute('aria-pressed')") == "false"
    found.close()


def test_a_key_that_is_released_before_the_next_frame_moves_the_camera(chrome, planes):
    found = opened(chrome, planes[0] / "web.html")
    found.evaluate("['keydown', 'keyup'].forEach(kind => dispatchEvent(new KeyboardEvent(kind, {key: 'ArrowRight'})))")
    found.wait_for("enerf.camera().position[0] > 1e-4")
    assert found.evaluate("held.size") == 0
    found.close()


def test_zooming_ends_if_shift_is_released_before_plus(chrome, planes):
    found = opened(chrome, planes[0] / "web.html")
    start = found.evaluate("enerf.camera().fx")
    found.evaluate("dispatchEvent(new KeyboardEvent('keydown', {key: '+', shiftKey: true}))")
    found.wait_for(f"enerf.camera().fx > 1.1 * {start}")
    found.evaluate("dispatchEvent(new KeyboardEvent('keyup', {key: '='}))")
    assert found.evaluate("held.size") == 0
    found.close()


def test_a_page_in_a_hidden_frame_is_drawn_when_it_is_shown(chrome, planes, tmp_path):
    outer = tmp_path / "outer.html"
    address = f"{(planes[0] / 'web.html').as_uri()}#bare,still"
    outer.write_text(f'<iframe src="{address}" style="display: none; width: 300px; height: 250px"></iframe>')
    found = chrome.open(outer.as_uri(), width=400, height=300)
    time.sleep(2)  # it is loaded without a size
    found.evaluate("document.querySelector('iframe').style.display = 'block'")
    ends = time.monotonic() + browser.SECONDS
    while found.screenshot()[60:200, 60:250].std() < 5 and time.monotonic() < ends:
        time.sleep(0.2)
    assert found.screenshot()[60:200, 60:250].std() > 5
    found.close()


def test_a_page_in_a_frame_is_still_and_leaves_the_wheel_to_the_page_around_it(chrome, planes, tmp_path):
    inner = html.escape((planes[0] / "web.html").read_text())
    style = "width: 300px; height: 250px"
    (tmp_path / "outer.html").write_text(
        f'<iframe srcdoc="{inner}" style="{style}"></iframe><p style="height: 2000px">'
    )
    found = chrome.open((tmp_path / "outer.html").as_uri(), width=400, height=300)
    found.wait_for("frames[0].enerf")
    start = found.evaluate("frames[0].enerf.camera()")
    assert start["position"] == [0, 0, 0]
    found.wheel(150, 120, 100)
    found.wait_for("scrollY > 50")
    found.evaluate("scrollTo(0, 0)")
    assert found.evaluate("frames[0].enerf.camera()") == start
    found.click(150, 120)
    found.wheel(150, 120, -300)
    found.wait_for(f"frames[0].enerf.camera().fx > 1.3 * {start['fx']}")
    assert found.evaluate("scrollY") == 0
    found.close()


def test_depth_and_sway_are_toggled(chrome, planes):
    found = opened(chrome, planes[0] / "web.html", "bare,still")
    color = settled(found)
    found.key("d")
    depth = settled(found)
    assert decibels(color, depth) < 25
    found.key("d")
    assert decibels(color, settled(found)) > 60
    drawn = found.evaluate("enerf.drawn()")
    time.sleep(0.3)
    assert found.evaluate("enerf.drawn()") == drawn  # a still page draws nothing
    found.key(" ")
    found.wait_for("Math.abs(enerf.camera().position[0]) > 0.01")
    assert found.evaluate("enerf.drawn()") > drawn
    assert found.messages == []
    found.close()


def test_fingers_drag_and_pinch(chrome, planes):
    found = opened(chrome, planes[0] / "web.html", size=(240, 420), phone=True)
    start = found.evaluate("enerf.camera()")
    assert start["width"] == 480
    found.touch("touchStart", (120, 210))
    for x in (110, 100, 80):
        found.touch("touchMove", (x, 210))
    found.touch("touchEnd")
    found.wait_for("enerf.camera().position[0] > 0.005")
    found.touch("touchStart", (100, 210), (140, 210))
    for apart in (30, 40, 60):
        found.touch("touchMove", (120 - apart, 210), (120 + apart, 210))
    found.touch("touchEnd")
    found.wait_for(f"enerf.camera().fx > 1.5 * {start['fx']}")
    assert found.messages == []
    found.close()


def test_a_browser_without_webgl2_is_told(chrome, planes):
    found = chrome.open("about:blank")
    found.call("Page.addScriptToEvaluateOnNewDocument", source="HTMLCanvasElement.prototype.getContext = () => null")
    found.go((planes[0] / "web.html").as_uri())
    found.wait_for("document.getElementById('message').textContent.includes('WebGL2')")
    found.close()


def test_a_missing_file_is_named(chrome, planes, tmp_path):
    for path in (planes[0] / "web").iterdir():
        if path.name != "data_rgb_1.js":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    found = chrome.open((tmp_path / "index.html").as_uri())
    found.wait_for("document.getElementById('message').textContent.includes('data_rgb_1.js')")
    found.close()


def sphere(rings: int = 24, sectors: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a unit sphere; its faces are seen from outside."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, sectors + 1)[:-1], indexing="ij"
    )
    vertices = np.stack([np.sin(polar) * np.cos(around), np.cos(polar), -np.sin(polar) * np.sin(around)], -1)
    index = np.arange(rings * sectors).reshape(rings, sectors)
    a, b, c, d = index[:-1], np.roll(index, -1, 1)[:-1], index[1:], np.roll(index, -1, 1)[1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    return vertices.reshape(-1, 3), faces


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """A page of a colored sphere beside a smaller one, and the codes of both."""
    vertices, faces = sphere()
    colors = ((vertices * 0.5 + 0.5) * 255).astype(np.uint8)
    pair = NamedMesh("fitted", vertices, faces, colors), NamedMesh("original", 0.5 * vertices, faces)
    file = tmp_path_factory.mktemp("mesh page") / "mesh.html"
    page.write(mesh_page.page(*pair, TITLE), file, one_file=True)
    return file, [mesh_code.encode(each.vertices, each.faces, each.colors) for each in pair]


def test_meshes_are_decoded_as_by_the_reference(chrome, meshes):
    found = opened(chrome, meshes[0])
    for number, code in enumerate(meshes[1]):
        vertices, faces, _ = mesh_code.decode(code)
        arrays = found.evaluate(f"enerf.arrays({number})")
        assert np.array_equal(np.reshape(arrays["faces"], (-1, 3)), faces)
        expected = (vertices - found.evaluate("META.center")) / found.evaluate("META.radius")
        assert np.abs(np.reshape(arrays["positions"], (-1, 3)) - expected).max() < 1e-6
    assert found.messages == []
    found.close()


def covers(picture: np.ndarray) -> np.ndarray:
    """Which pixels are not the background."""
    return np.abs(picture - picture[0, 0]).max(-1) > 0.05


def test_meshes_are_compared_cut_and_shown_as_wires(chrome, meshes):
    found = opened(chrome, meshes[0], "bare,still", (400, 300))
    whole = settled(found, "{yaw: 0, pitch: 0}")
    covered = covers(whole)
    rows = covered.any(1)
    assert covered[:, :199].sum() > 3 * covered[:, 202:].sum() > 0  # the right one is half as large
    assert rows.sum() > 150
    middle = whole[150, 150]
    assert np.ptp(middle) > 0.05  # colored
    found.key("c")
    assert np.ptp(settled(found)[150, 150]) < 0.05
    found.key("w")
    wires = settled(found)
    assert (wires[rows].min(-1) < 0.2).sum() > 100 + (whole[rows].min(-1) < 0.05).sum()
    found.key("w")
    found.drag((200, 150), (398, 150))
    assert found.evaluate("enerf.shown.share") > 0.9
    assert float(found.evaluate("[...document.querySelectorAll('#tools input')].at(-1).value")) > 0.9
    assert covers(settled(found))[:, 205:350].sum() > 1000
    found.evaluate(
        "(s => { s.value = 0.5; s.dispatchEvent(new Event('input')) })(document.querySelector('#tools input'))"
    )
    half = covers(settled(found))
    assert half[:, 205:350].sum() == 0  # beyond the clipping plane
    assert half[:, :195].sum() > 1000
    before = found.evaluate("enerf.camera().yaw")
    found.drag((100, 150), (160, 150))
    found.wait_for(f"Math.abs(enerf.camera().yaw - {before}) > 0.2")
    assert found.messages == []
    found.close()


def test_a_larger_original_is_cut_by_the_slider_only(chrome, tmp_path):
    vertices, faces = sphere()
    pair = NamedMesh("fitted", vertices, faces), NamedMesh("original", 2.5 * vertices, faces)
    page.write(mesh_page.page(*pair, "t"), tmp_path / "mesh.html", one_file=True)
    found = opened(chrome, tmp_path / "mesh.html", "bare,still", (400, 300))
    found.evaluate("enerf.shown.share = 0")

    def inside() -> int:  # pixels of the color of inner sides
        picture = settled(found, "{yaw: 1.2, pitch: 0, distance: 8}")
        return int((picture[..., 0] - picture[..., 2] > 0.15).sum())

    assert inside() < 20  # at the silhouette
    found.evaluate("enerf.shown.cut = 0.9")
    assert inside() > 100
    found.close()
