"""The viewer in a real browser."""

import dataclasses
import json
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("viser", reason="needs the extra viewer")

from enerf.datasets.scenes import camera_path_files, coordinates
from enerf.datasets.scenes.keyframes import Keyframe
from enerf.tasks.nerf import opened
from enerf.viewer import modes, nerf_runs, poses
from enerf.viewer.controls import Controls, plain
from enerf.viewer.path_panel import MOST_KEYFRAMES
from enerf.viewer.sources import SplitSource
from enerf.viewer.viser_server import Server
from enerf.viewer.window import Viewer
from tests import browser

OWN = "THREE.Clock: This module has been deprecated"  # of viser's page
BUTTON = "[...document.querySelectorAll('button')].find(e => e.innerText.trim() === {!r})"
TALL = 1100  # pixels that show all of the panel: one that scrolls moves while it is clicked at
FREE = (slice(190, 590), slice(10, 500))  # of a page of 900 × 600: no control and no notice covers it


@contextmanager
def serving(viewer: Viewer):
    """Let a viewer render in a thread."""
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            if not viewer.scheduler.turn():
                viewer.scheduler.wait(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield viewer
    finally:
        is_over.set()
        thread.join()
        viewer.close()


@pytest.fixture(scope="module")
def chrome():
    with browser.launched() as found:
        yield found


@pytest.fixture
def opened_page(chrome):
    """Function that opens the page of a viewer; pages are closed, for they would connect to the next one."""
    pages = []

    def open_page(viewer: Viewer, *, height: int = 600) -> browser.Page:
        pages.append(chrome.open(viewer.server.address, width=900, height=height, fresh=True))
        until(
            lambda: (
                len(viewer._controls) == len(pages)
                and all(map(is_at_start, viewer.server.viser.get_clients().values()))
            )
        )
        return pages[-1]

    def is_at_start(client) -> bool:
        """Whether the page has taken the start of the camera, which it is sent after its first message."""
        return np.allclose(client.camera.position, client._viser_server.initial_camera.position, atol=1e-3)

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def viewer(runs, shown, opened_page):
    """A viewer of one run."""
    views = opened.open_views(runs[0], "cpu")
    source = nerf_runs.source_of(views.run, "one")
    with serving(Viewer(Server(), source, runs[0], recorder=nerf_runs.recorder(views, source))) as made:
        yield made


@pytest.fixture
def split(runs, shown, opened_page):
    """A viewer of two runs, with other scene coordinates."""
    sources = [nerf_runs.source_of(opened.open_views(run, "cpu").run, run.name) for run in runs]
    with serving(Viewer(Server(), SplitSource(*sources), runs[0])) as made:
        yield made


@pytest.fixture
def shown(monkeypatch):
    """Pictures that viewers have sent: browser, image, whether it is the last rung."""
    sent, deliver = [], Viewer._deliver

    def record(self, key, drawn, rung, is_last):
        sent.append((key, drawn.image, is_last))
        deliver(self, key, drawn, rung, is_last)

    monkeypatch.setattr(Viewer, "_deliver", record)
    return sent


def result_of(work):
    """What a rendering returns at its end."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value


def until(condition, seconds: float = 20.0):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.05)
    raise TimeoutError(str(condition))


def settled(viewer: Viewer, sent: list) -> np.ndarray:
    """The last exact picture, when nothing more is to be rendered."""
    time.sleep(0.5)
    until(lambda: sent and sent[-1][2] and viewer.scheduler._chosen(peek=True) is None)
    return sent[-1][1]


def button(page: browser.Page, text: str) -> None:
    page.click_on(BUTTON.format(text))


def slider(page: browser.Page, label: str, pixels: int) -> None:
    """Drag a slider (arrow keys would move the camera too)."""
    found = f"[...document.querySelectorAll('label')].find(e => e.innerText === {label!r})"
    handle = f"{found}.closest('.mantine-Flex-root, div').parentElement.querySelector('[role=slider]')"
    box = f"(() => {{ const b = {handle}.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2] }})()"
    x, y = page.evaluate(box)
    page.drag((x, y), (x + pixels, y))


def complaints(page: browser.Page) -> list[str]:
    return [text for text in page.messages if OWN not in text]


def test_a_page_shows_the_exact_picture_without_a_message_in_the_console(viewer, opened_page, shown):
    page = opened_page(viewer)
    image = settled(viewer, shown)
    controls = next(iter(viewer._controls.values()))
    exact = viewer._source.drawn(controls.view(), controls.view().size)
    assert np.array_equal(result_of(exact).image, image)
    page.wait_for("document.body.innerText.includes('exact')")
    button_box = "[...document.querySelectorAll('label')].find(e => e.innerText === 'Cameras')"
    page.evaluate(f"{button_box}.closest('div').parentElement.parentElement.querySelector('input').click()")
    time.sleep(1.5)
    seen = page.screenshot()[FREE].astype(float)
    wanted = cv2.resize(image, (900, 600), interpolation=cv2.INTER_LINEAR)[FREE]
    assert np.abs(seen - wanted).mean() < 8
    assert complaints(page) == []
    assert {request.split(":", 1)[0] for request in page.requests} <= {"http", "data", "blob"}
    assert all(str(viewer.server.access.port) in each for each in page.requests if each.startswith("http"))


def test_a_slider_moves_the_line_between_two_runs(split, opened_page, shown):
    page = opened_page(split)
    first = settled(split, shown)
    slider(page, "Split", 30)
    second = settled(split, shown)
    lines = [int(np.flatnonzero((image == 255).all((0, 2)))[0]) for image in (first, second)]
    assert lines[0] < lines[1]
    assert complaints(page) == []
    between = slice(lines[0] + 1, lines[1])
    assert not np.array_equal(first[:, between], second[:, between])
    assert np.array_equal(first[:, : lines[0]], second[:, : lines[0]])


def test_a_drag_moves_the_camera_and_shows_a_small_picture_first(viewer, opened_page, shown):
    page = opened_page(viewer)
    before = settled(viewer, shown)
    sent = len(shown)
    page.drag((250, 300), (300, 320))
    after = settled(viewer, shown)
    assert not np.array_equal(before, after)
    assert len(shown) > sent
    assert shown[-1][1].shape == before.shape


def test_keyframes_are_recorded_saved_loaded_and_rendered(viewer, opened_page, shown, runs):
    page = opened_page(viewer, height=TALL)
    settled(viewer, shown)
    button(page, "Add keyframe")
    until(lambda: len(viewer.panel.keyframes) == 1)
    page.drag((250, 300), (300, 320))
    settled(viewer, shown)
    button(page, "Add keyframe")
    until(lambda: len(viewer.panel.keyframes) == 2)
    first, second = viewer.panel.keyframes
    assert not np.allclose(first.c2w, second.c2w)

    viewer.panel._seconds.value = 0.25
    button(page, "Save")
    file = runs[0] / "camera_paths" / "camera_path.json"
    until(file.is_file)
    saved = camera_path_files.read(file)
    assert (len(saved.poses), len(saved.keyframes), saved.fps) == (6, 2, 24)
    scene = viewer._source.scene
    back = camera_path_files.to_scene(scene.world_to_scene.double().numpy(), saved)
    assert np.allclose(back[0], first.c2w, atol=1e-5)

    button(page, "Clear")
    until(lambda: not viewer.panel.keyframes)
    button(page, "Load")
    until(lambda: len(viewer.panel.keyframes) == 2)
    assert np.allclose(viewer.panel.keyframes[1].c2w, second.c2w, atol=1e-5)

    button(page, "Render video")
    video = file.with_suffix(".mp4")
    until(video.is_file)
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 6
    page.wait_for("document.body.innerText.includes('video:')")
    assert complaints(page) == []


def test_a_video_goes_on_where_it_was_stopped(viewer, runs, monkeypatch):
    scene, panel = viewer._source.scene, viewer.panel
    panel.keyframes = [Keyframe(scene.c2w[i].double().numpy(), 40.0) for i in (0, 3)]
    panel._seconds.value, panel._name.value = 0.5, "stopped"
    rendered, picture = [], viewer._source.picture

    def counted(c2w, camera):
        rendered.append(c2w)
        if len(rendered) == 5:
            threading.Thread(target=panel.stop).start()
            until(lambda: panel._is_stopped)
        return picture(c2w, camera)

    monkeypatch.setattr(viewer._source, "picture", counted)
    panel._render(None)
    until(lambda: "stopped" in panel._text.content and not panel._video.is_alive())
    video = runs[0] / "camera_paths" / "stopped.mp4"
    kept = len(list(video.with_name("stopped_frames").glob("*.png")))
    assert not video.exists()
    assert 3 <= kept < 12
    panel._render(None)
    until(video.is_file)
    until(lambda: not panel._video.is_alive())
    assert len(rendered) == 5 + 12 - kept
    assert cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FRAME_COUNT) == 12


def test_two_browsers_see_different_views(viewer, opened_page, shown):
    pages = [opened_page(viewer) for _ in range(2)]
    until(lambda: len(viewer._controls) == 2)
    settled(viewer, shown)
    pages[1].drag((250, 300), (330, 320))
    settled(viewer, shown)
    last = {key: image for key, image, is_last in shown if is_last}
    assert len(last) == 2
    assert not np.array_equal(*last.values())
    for page in pages:
        page.go("about:blank")
    until(lambda: not viewer._controls)
    assert not viewer.scheduler.is_watched


def test_values_that_no_control_sends_are_bounded(viewer, opened_page, shown):
    opened_page(viewer)
    settled(viewer, shown)
    controls: Controls = next(iter(viewer._controls.values()))
    controls._mode._impl.value = "<script>"
    controls._size._impl.value = 10**9
    controls._split._impl.value = float("nan")
    controls._cropped._impl.value = True
    controls._ranges[0]._impl.value = ("a", 1e30)
    view = controls.view()
    assert (view.mode, view.size, view.split) == (modes.COLOR, 2016, 0.5)
    assert np.isfinite(view.box).all()
    assert torch.isfinite(view.c2w).all()


def test_the_picture_hides_what_is_behind_it(viewer, opened_page, shown):
    """A red ball on the optical axis: behind the surface hidden, without occlusion and in front of it seen."""
    page = opened_page(viewer, height=TALL)
    settled(viewer, shown)
    client, controls = (next(iter(each.values())) for each in (viewer.server.viser.get_clients(), viewer._controls))
    depth = result_of(viewer._source.drawn(controls.view(), 64)).depth
    near = float(depth[np.isfinite(depth)].min())
    ahead = client.camera.look_at - client.camera.position
    ahead /= np.linalg.norm(ahead)
    red = "[...document.querySelectorAll('label')].find(e => e.innerText === 'Occlusion')"
    switch = f"{red}.closest('div').parentElement.parentElement.querySelector('input').click()"

    def reds(distance: float) -> int:
        """Number of red pixels with a ball at a distance, which looks equally large at each."""
        ball = viewer.server.viser.scene.add_icosphere(
            "/ball", 0.05 * distance, color=(255, 0, 0), position=client.camera.position + distance * ahead
        )
        time.sleep(2)
        seen = page.screenshot().astype(int)
        ball.remove()
        return int(((seen[..., 0] > 150) & (seen[..., 1:].max(-1) < 60)).sum())

    before, behind = 0.5 * near, 50 * near
    assert (reds(before) > 300, reds(behind)) == (True, 0)
    page.evaluate(switch)
    until(lambda: not controls.is_occluding)
    settled(viewer, shown)
    assert reds(behind) > 300


def test_play_moves_the_camera_along_the_path_and_stops_when_asked_again(viewer, opened_page, shown):
    page = opened_page(viewer, height=TALL)
    settled(viewer, shown)
    scene, panel = viewer._source.scene, viewer.panel
    ends = [scene.c2w[i].double().numpy() for i in (0, 3)]
    panel.keyframes = [Keyframe(each, 40.0) for each in ends]
    camera = next(iter(viewer.server.viser.get_clients().values())).camera
    panel._seconds.value = 1.0
    button(page, "Play")
    until(lambda: not panel._playing and np.allclose(camera.position, ends[1][:, 3], atol=1e-3))
    assert camera.fov == pytest.approx(np.radians(40.0), abs=1e-3)
    assert torch.allclose(poses.from_viser(camera.wxyz, camera.position), scene.c2w[3], atol=2e-3)

    panel._seconds.value = 600.0
    button(page, "Play")
    until(lambda: panel._playing and np.allclose(camera.position, ends[0][:, 3], atol=1e-2))
    button(page, "Play")
    until(lambda: not panel._playing)
    page.go("about:blank")
    assert complaints(page) == []


def loaded(viewer: Viewer, name: str) -> list[Keyframe]:
    """Keyframes after a file of the run was loaded."""
    viewer.panel._name.value = name
    viewer.panel._guarded(viewer.panel._load)(None)
    return viewer.panel.keyframes


def test_paths_of_nerfstudio_are_loaded_with_the_scenes_own_transform(viewer, runs, tmp_path):
    """What nerfstudio did to the scene before, its transforms.json says."""
    scene, folder = viewer._source.scene, tmp_path / "camera_paths"
    folder.mkdir()
    keys = [Keyframe(scene.c2w[i].double().numpy(), 40.0) for i in (0, 3)]
    viewer.panel._folder, viewer.panel.keyframes = tmp_path, keys
    (tmp_path / "transforms.json").write_text(
        json.dumps({"applied_transform": [[0, 1, 0, 0.5], [1, 0, 0, 0], [0, 0, -1, 0]]})
    )
    (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 0.5}))
    viewer._source.datadir = tmp_path
    viewer.panel._guarded(viewer.panel._save)(None)
    written = json.loads((folder / "camera_path.json").read_text())["keyframes"][0]["matrix"]
    center = (np.linalg.inv(scene.world_to_scene.double().numpy()) @ [*keys[0].c2w[:, 3], 1])[:3]
    moved = 0.5 * (center - [0.5, 0, 0])[[1, 0, 2]] * [1, 1, -1]
    assert np.allclose(np.reshape(written, (4, 4))[:3, 3], moved)
    viewer.panel.keyframes = []
    assert np.allclose(loaded(viewer, "camera_path")[1].c2w, keys[1].c2w)


def test_a_path_of_many_cameras_is_loaded_as_a_whole_with_its_size(viewer, runs):
    scene, folder = viewer._source.scene, runs[0] / "camera_paths"
    to_world = np.linalg.inv(scene.world_to_scene.double().numpy())
    ends = coordinates.transform_poses(to_world, scene.c2w[[0, 3]].double().numpy())
    path = camera_path_files.through(tuple(Keyframe(each, 40.0) for each in ends), 50.0, 24, 70, 30)
    camera_path_files.write(folder / "long.json", dataclasses.replace(path, keyframes=()))
    keys = loaded(viewer, "long")
    assert len(keys) == MOST_KEYFRAMES
    back = viewer.panel.path()
    assert np.allclose(back.poses[[0, 600]], path.poses[[0, 600]], atol=1e-3)
    assert np.allclose(back.poses[-1], path.poses[-1], atol=1e-2)
    assert (len(back.poses), back.width, back.height) == (1200, 70, 30)


def test_what_cannot_be_loaded_saved_or_understood_is_a_sentence_in_the_panel(viewer, runs, tmp_path):
    panel = viewer.panel
    assert loaded(viewer, "absent") == []
    assert plain("not found, expected a path that was saved before")[7:-8] in panel._text.content
    panel.keyframes = [Keyframe(viewer._source.scene.c2w[0].double().numpy(), 40.0)]
    (tmp_path / "camera_paths").write_text("a file")
    panel._folder = tmp_path
    for action in (panel._save, panel._render):
        panel._guarded(action)(None)
        until(lambda: "cannot" in panel._text.content)
    for value in (float("nan"), float("inf"), "abc"):
        panel._seconds._impl.value = panel._fps._impl.value = value
        assert (panel._length(), panel._rate()) == (4.0, 24)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 99, "a\nb"])
def test_paths_are_saved_in_the_runs_folder_only(viewer, name):
    viewer.panel._name.value = name
    viewer.panel._guarded(viewer.panel._save)(None)
    assert "Name&#58; found" in viewer.panel._text.content or "Name: found" in viewer.panel._text.content
