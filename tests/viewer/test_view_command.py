"""The command ``enerf view``: what it prints, how it ends, and what it refuses."""

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser", reason="needs the extra viewer")

from enerf.cli import view
from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError
from enerf.geometry import synthetic as shapes
from enerf.tasks.shape import train
from enerf.tasks.shape.config import ShapeConfig

CHOSEN = [
    *("--netwidth", "16", "--hash_levels", "3", "--hash_log2_entries", "12", "--lrate", "2e-2", "--N_points", "512"),
    *("--N_iters", "200", "--i_eval", "0", "--resolution", "0", "--no_final_eval", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory):
    """Folders of runs of a mesh and of an image."""
    folder = tmp_path_factory.mktemp("shapes")
    shapes.write_shapes(folder)
    images.write_png(folder / "a.png", np.zeros((8, 8, 3), np.uint8))
    for name, source in (
        ("mesh", ["--mesh", str(folder / "torus.ply")]),
        ("image", ["--image", str(folder / "a.png")]),
    ):
        words = [*source, "--basedir", str(folder), "--expname", name, *CHOSEN]
        train.train(parser.parse(ShapeConfig, words)[0])
    return {name: folder / name for name in ("mesh", "image")}


def started(*words: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "enerf.cli.main", "view", *map(str, words), "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("names", "number"),
    [(["one"], signal.SIGTERM), (["one", "two"], signal.SIGINT), (["mesh"], signal.SIGINT)],
)
def test_it_prints_its_address_and_ends_by_a_signal(runs, other_runs, names, number):
    known = {"one": runs[0], "two": runs[1], **other_runs}
    process = started(*(known[name] for name in names))
    try:
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), process.stderr.read()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=20) as found:
            assert found.status == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err
    assert "Ctrl-C ends the viewer" in err


def test_a_server_that_nobody_stopped_ends_silently():
    code = "from enerf.viewer.viser_server import Server; server = Server()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["one", "two", "one"], "RUN: found 3 folders, expected one or two"),
        (["absent"], "absent does not exist, expected the folder of a training run"),
        (["one", "mesh"], r"mesh: found a run of kind 'shape', expected 'nerf', as .*one"),
        (["image"], "image: found a run of an image, expected one of a mesh"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(runs, other_runs, names, message):
    known = {"one": runs[0], "two": runs[1], **other_runs, "absent": runs[0].parent / "absent"}
    port = free_port()
    with pytest.raises(InputError, match=message) as caught:
        view.main([*(str(known[name]) for name in names), "--device", "cpu", "--port", str(port)])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConnectionRefusedError):  # the server is closed again
        socket.create_connection(("127.0.0.1", port), timeout=5).close()


def test_a_scene_that_has_gone_is_one_sentence(runs):
    with pytest.raises(InputError, match="nowhere"):
        view.main([str(runs[0]), "--device", "cpu", "--datadir", "/nowhere"])
