"""The viewer of runs in training."""

import time

import msgspec
import numpy as np
import pytest
import torch
import trimesh

pytest.importorskip("viser", reason="needs the extra viewer")

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.engine import checkpoint
from enerf.engine.trainer import Hook
from enerf.geometry import synthetic as shapes
from enerf.tasks.nerf import train
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig
from enerf.viewer import live, live_shapes
from enerf.viewer.controls import plain
from enerf.viewer.mesh_window import MeshViewer, ShownMesh
from enerf.viewer.options import LiveOptions
from enerf.viewer.sources import View
from enerf.viewer.viser_server import Server
from enerf.viewer.window import Look, Viewer
from tests.viewer.sockets import CAMERA, until, websocket

SHAPE = [
    *("--netwidth", "16", "--hash_levels", "3", "--hash_log2_entries", "12", "--hash_finest", "24", "--lrate", "2e-2"),
    *("--N_points", "512", "--pool", "2048", "--background", "none", "--N_iters", "200", "--i_eval", "0"),
    *("--resolution", "0", "--device", "cpu", "--no_final_eval"),
]


class Watched(live.LiveViewer):
    """A viewer that somebody looks at from the first step on; counts pictures."""

    def watch(self, run) -> Hook:
        hook = super().watch(run)
        view = View(run.scene.c2w[0], 0.8, 4 / 3, size=64)
        self._viewer.scheduler.look("a", Look(view, [16, 32, 64]))
        self.delivered = []
        self._viewer.scheduler._deliver = lambda key, drawn, rung, is_last: self.delivered.append(drawn.image)
        return hook


def weights(config: NerfConfig) -> dict[str, torch.Tensor]:
    return checkpoint.newest(config.folder, ["nerf"])[0]["model"]


def trained(words, name: str, viewer=None) -> dict[str, torch.Tensor]:
    config = parser.parse(NerfConfig, [*words, "--expname", name, "--N_iters", "12"])[0]
    train.train(config, watch=None if viewer is None else viewer.watch)
    return weights(config)


def test_a_watched_training_ends_with_the_same_weights(words, monkeypatch):
    monkeypatch.setattr(live, "REFRESH_SECONDS", 0.0)
    viewer = Watched(LiveOptions(viewer=True))
    try:
        seen = trained(words, "watched", viewer)
    finally:
        viewer.close()
    alone = trained(words, "alone")
    assert len(viewer.delivered) > 3
    assert not np.array_equal(viewer.delivered[2], viewer.delivered[-1])  # of other weights
    assert seen.keys() == alone.keys()
    assert all(torch.equal(seen[name], alone[name]) for name in seen)


class Visited(live.LiveViewer):
    """A viewer that a browser opens before the second step and leaves before the last one."""

    def _between_steps(self, training) -> None:
        if training.step == 1:
            self.page = websocket(self._server)
            self.page.send(msgspec.msgpack.encode(CAMERA))
            assert until(lambda: self._viewer.scheduler.is_watched)
        super()._between_steps(training)
        if training.step == 11:
            self.page.close()
            assert until(lambda: not self._viewer.scheduler.is_watched)


def test_a_browser_may_come_and_go_while_training(words, monkeypatch):
    sent, deliver = [], Viewer._deliver

    def record(self, key, drawn, rung, is_last):
        deliver(self, key, drawn, rung, is_last)
        sent.append((drawn.image.shape[1], self._status.content))

    monkeypatch.setattr(Viewer, "_deliver", record)
    viewer = Visited(LiveOptions(viewer=True))
    try:
        seen = trained(words, "visited", viewer)
        assert not viewer._viewer._controls
    finally:
        viewer.close()
    assert sent
    assert sent[0][0] < 100
    assert "step " in sent[-1][1]
    alone = trained(words, "not_visited")
    assert all(torch.equal(seen[name], alone[name]) for name in alone)


def test_a_viewer_that_nobody_looks_at_costs_no_time(words):
    viewer = live.LiveViewer(LiveOptions(viewer=True))
    hooks, states = [], []

    def watch(run):
        states.append(run.state)
        hooks.append(viewer.watch(run))
        return hooks[0]

    try:
        config = parser.parse(NerfConfig, [*words, "--expname", "unwatched", "--N_iters", "3"])[0]
        train.train(config, watch=watch)
        began = time.thread_time()
        for _ in range(200):
            hooks[0].call(states[0])
        assert time.thread_time() - began < 0.02  # 0.1 ms each: less than 3 % of a step of 4 ms
    finally:
        viewer.close()


def test_a_shape_in_training_is_shown_as_a_mesh(tmp_path):
    shapes.write_shapes(tmp_path)
    words = ["--mesh", str(tmp_path / "torus.ply"), "--basedir", str(tmp_path / "logs"), "--expname", "one", *SHAPE]
    viewer, runs = live_shapes.LiveShapeViewer(LiveOptions(viewer=True)), []

    def watch(run):
        runs.append(run)
        return viewer.watch(run)

    try:
        shape_train.train(parser.parse(ShapeConfig, words)[0], watch=watch)
        made = live_shapes.mesh_of(runs[0], 32)
        low, high = runs[0].target.normalization.to_file(np.array([[-1.0] * 3, [1.0] * 3]))
        assert made.name == "one, step 200"
        assert len(made.faces) > 100
        assert (made.vertices >= low).all()
        assert (made.vertices <= high).all()
        a, b, c = (made.vertices[made.faces[:, i]] for i in range(3))
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() > 0  # faces outwards
    finally:
        viewer.close()


def test_a_mesh_that_grows_is_shown_whole_and_named_anew():
    def ball(radius: float, name: str) -> ShownMesh:
        made = trimesh.creation.icosphere(2, radius)
        return ShownMesh(name, np.asarray(made.vertices, np.float64), np.asarray(made.faces, np.int64))

    first, second = ball(0.1, "step 0"), ball(0.8, "step 9")
    viewer = MeshViewer(Server(), [first], np.array([[-1.0] * 3, [1.0] * 3]))
    try:
        viewer.replace([second])
        assert len(viewer._drawn[0].faces) == len(second.faces)
        assert viewer._text.content == plain("step 9: 320 faces")
        viewer._clip.value = 0.5
        viewer._draw()
        assert 0.4 * len(second.faces) < len(viewer._drawn[0].faces) < 0.6 * len(second.faces)
    finally:
        viewer.close()


@pytest.mark.parametrize("chosen", [{"viewer_host": "0.0.0.0"}, {"viewer_port": 80}])
def test_an_address_without_a_viewer_is_one_sentence(chosen):
    name, value = next(iter(chosen.items()))
    with pytest.raises(InputError, match=f"option --{name}: found '{value}' without --viewer, expected both or none"):
        LiveOptions(**chosen).check()
    LiveOptions(viewer=True, **chosen).check()


def test_what_is_only_rendered_cannot_be_watched(words):
    config = parser.parse(NerfConfig, [*words, "--expname", "alone", "--render_only"])[0]
    with pytest.raises(InputError, match="option --viewer: found --render_only, expected a training"):
        train.train(config, watch=lambda run: Hook(1, print))


def test_the_training_of_an_image_is_not_shown(tmp_path):
    viewer = live_shapes.LiveShapeViewer(LiveOptions(viewer=True))
    image = tmp_path / "a.png"
    from enerf.core import images

    images.write_png(image, np.zeros((8, 8, 3), np.uint8))
    words = ["--image", str(image), "--basedir", str(tmp_path / "logs"), "--N_iters", "1", "--i_eval", "0"]
    try:
        config = parser.parse(ShapeConfig, [*words, "--no_final_eval", "--device", "cpu"])[0]
        with pytest.raises(InputError, match="option --viewer: found --image, expected a mesh, a cloud or a volume"):
            shape_train.train(config, watch=viewer.watch)
    finally:
        viewer.close()
