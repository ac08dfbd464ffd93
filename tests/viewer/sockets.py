"""Browsers that are only a websocket."""

import socket
import time

from websockets.sync.client import connect

from enerf.viewer.viser_server import VERSION, Server

CAMERA = {
    "type": "ViewerCameraMessage",
    **{"wxyz": (1.0, 0.0, 0.0, 0.0), "position": (0.0, 0.0, 0.0), "look_at": (0.0, 0.0, 1.0)},
    **{"up_direction": (0.0, 1.0, 0.0), "fov": 1.0, "near": 0.1, "far": 10.0, "image_height": 60, "image_width": 80},
}


def websocket(server: Server, *, host: str = "", origin: str | None = "", version: str = VERSION, **headers: str):
    """A websocket, of the server's own page unless the origin, the host or the version is another."""
    host = host or f"127.0.0.1:{server.access.port}"
    raw = socket.create_connection(("127.0.0.1", server.access.port))
    wanted = f"http://{host}" if origin == "" else origin
    offered = [f"viser-v{version}"] if version else None
    return connect(
        f"ws://{host}/", sock=raw, origin=wanted, subprotocols=offered, additional_headers=headers, proxy=None
    )


def until(condition, seconds: float = 20.0) -> bool:
    """Whether a condition becomes true in time."""
    ends = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < ends:
        time.sleep(0.02)
    return bool(found)
