"""Many browsers that come and go."""

import gc
import resource
import threading
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("viser", reason="needs the extra viewer")

from enerf.tasks.nerf import opened
from enerf.viewer import nerf_runs
from enerf.viewer.viser_server import Server
from enerf.viewer.window import Viewer
from tests.viewer.sockets import CAMERA, websocket


def resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def visit(server: Server) -> None:
    """Connect, look, wait for a message, and leave."""
    with websocket(server) as client:
        client.send(msgspec.msgpack.encode(CAMERA))
        client.recv(timeout=30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_connections_leave_memory_flat(runs):
    views = opened.open_views(runs[0], "cpu")
    viewer = Viewer(Server(), nerf_runs.source_of(views.run, "one"), runs[0])
    is_over = threading.Event()

    def serve() -> None:
        while not is_over.is_set():
            if not viewer.scheduler.turn():
                viewer.scheduler.wait(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        used = []
        for count in (200, 400, 400):  # the first ones fill caches and pools of threads
            for _ in range(count):
                visit(viewer.server)
            gc.collect()
            used.append(resident())
    finally:
        is_over.set()
        thread.join()
        viewer.close()
    print(f"MiB after 200, 600 and 1,000 connections: {used}")
    assert used[2] - used[1] < 4
    assert used[2] - used[0] < 12
    assert not viewer._controls
    assert not viewer.scheduler.is_watched
    assert not viewer.server.viser.get_clients()
