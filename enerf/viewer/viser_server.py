"""viser's server, closed: the only module that touches viser's internals, hence a pinned version of viser.

What viser does by itself and this module changes:

- It listens on all addresses; here on the socket that it is given.
- It checks no header; here every request passes ``access.Access`` before viser sees it.
- Any client may ask it for a public tunnel, upload files, and set any attribute of a control; here all messages but
  cameras and values of controls are dropped before they are decoded, and the handlers of tunnels are removed.
- It prints a traceback for a value of another type than its control's; here that is a line for debugging.
- It builds its page, with a downloaded node.js, if its files have odd dates; here it never does.
- It prints to standard output, on which the commands write their results; also when the process ends.
"""

import asyncio
import atexit
import contextlib
import io
import logging
import math
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from enerf.core.errors import InputError, shown
from enerf.viewer import access

VERSION = "1.1.1"
FIRST_PORT, PORTS = 7007, 100
LARGEST_MESSAGE = 1 << 20  # bytes, from a browser
MOST_CLIENTS = 32
MOST_DEPTH = 160.0  # of pictures: viser sends whole multiples of 1e-5 below 2^24
DEPTH_SIZE, DEPTH_BITS = 252, 9  # longest side of pictures of depths that are sent; their precision
LONGEST_TEXT, MOST_VALUES = 1000, 16  # of a control's value, from a browser

log = logging.getLogger("enerf")


def require() -> Any:
    """The package viser.

    Raises
    ------
    InputError
        If it is not installed, or in another version than the one that this module was written for.
    """
    wanted = "expected the extra viewer: pip install 'enerf[viewer]'"
    try:
        import viser
    except ModuleNotFoundError:
        raise InputError(f"the viewer needs the package viser: found none, {wanted}") from None
    if viser.__version__ != VERSION:
        raise InputError(f"the viewer needs viser {VERSION}: found {viser.__version__}, {wanted}")
    return viser


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0: the first free one from 7007 on.

    Raises
    ------
    InputError
        If the host has no address here, or the port is taken.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise InputError(f"option --host: found {shown(host)}, expected an address or name of this computer") from None
    reason = ""
    for each in [port] if port else range(FIRST_PORT, FIRST_PORT + PORTS):
        opened = socket.socket(family, socket.SOCK_STREAM)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((where[0], each, *where[2:]))
            opened.listen()
            return opened
        except OSError as error:
            opened.close()
            reason = error.strerror or str(error)
    ports = str(port) if port else f"{FIRST_PORT} to {FIRST_PORT + PORTS - 1}"
    raise InputError(f"options --host and --port: {host} with {ports} cannot be used ({reason}), expected a free port")


class Server:
    """A viser server behind ``Access``.

    Attributes
    ----------
    viser
        The ``ViserServer``; the viewer uses its public interface: ``scene``, ``gui``, ``on_client_connect``.
    access
        The rules that its requests pass.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0, label: str = "enerf") -> None:
        """Listen; raises as ``require`` and ``bound``."""
        viser = require()
        from viser import _client_autobuild, _messages
        from viser.infra import _infra

        self._socket = bound(host, port)
        self._host = host
        name = self._socket.getsockname()
        self.access = access.access_for(name[0], name[1])
        self._is_open = False
        seen = _Package(_infra.websockets, self._serve)
        built = _replaced(_client_autobuild, "ensure_client_is_built", lambda: None)
        with built, _replaced(_infra, "websockets", seen), contextlib.redirect_stdout(io.StringIO()):
            self.viser = viser.ViserServer(host=host, port=name[1], label=label, verbose=False)
        for kind in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
            self.viser._websock_server.unregister_handler(kind)
        self.viser.request_share_url = _no_tunnel
        for stop in (self.viser.stop, self.viser._websock_server.stop):
            atexit.unregister(stop)
        atexit.register(self.stop)
        loop = self.viser.get_event_loop()
        loop.call_soon_threadsafe(loop.set_exception_handler, _log_error)
        self.viser.gui.configure_theme(show_share_button=False, show_logo=False, dark_mode=True)
        self._is_open = True

    @property
    def address(self) -> str:
        """Address of the page, with the token if there is one."""
        host = self._host if self.access.is_local else self.access.address
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        token = f"?token={self.access.token}" if self.access.token else ""
        return f"http://{host}:{self.access.port}/{token}"

    def stop(self) -> None:
        """Close all connections and the socket."""
        atexit.unregister(self.stop)
        self._is_open = False
        with contextlib.redirect_stdout(io.StringIO()):
            self.viser.stop()

    def _serve(self, handler: Callable[[Any], Any], host: str, port: int, **options: Any) -> Any:
        """``websockets.asyncio.server.serve`` as viser calls it, on our socket and behind ``access``."""
        import websockets.asyncio.server

        page, live = options.pop("process_request"), set()

        async def guarded(connection: Any) -> None:
            live.add(connection)
            connection.recv = _expected(connection.recv)
            try:
                await handler(connection)
            finally:
                live.discard(connection)

        def process_request(connection: Any, request: Any) -> Any:
            values = request.headers.get_all
            upgrade = " ".join(values("Upgrade")).lower()
            asked = access.Request(
                request.path, values("Host"), values("Origin"), values("Cookie"), "websocket" in upgrade
            )
            answer = self.access.answer_to(asked)
            if answer is None and asked.is_websocket and f"viser-v{VERSION}" not in _protocols(request.headers):
                answer = access.refusal(400, f"the page is of another version than viser {VERSION}: load it again")
            if answer is None and (not self._is_open or (asked.is_websocket and len(live) >= MOST_CLIENTS)):
                answer = access.refusal(503, "not ready, or too many browsers")
            if answer is None and asked.is_websocket:
                return None
            if answer is None:
                found = page(connection, request)
                found.headers.update(access.page_headers(asked.hosts[0]))
                return found
            response = connection.respond(HTTPStatus(answer.status), answer.text)
            for name, value in answer.headers.items():
                response.headers.pop(name, None)
                response.headers[name] = value
            return response

        options |= {"process_request": process_request, "max_size": LARGEST_MESSAGE, "close_timeout": 1}
        return websockets.asyncio.server.serve(guarded, sock=self._socket, **options)


def _expected(receive: Callable[[], Any]) -> Callable[[], Any]:
    """A connection's ``recv`` that skips all messages but cameras and values of controls."""
    import msgspec

    async def received() -> bytes:
        while True:
            raw = await receive()
            try:
                content = msgspec.msgpack.decode(raw)
                is_good = {"ViewerCameraMessage": _is_camera, "GuiUpdateMessage": _is_value}[content["type"]](content)
            except (msgspec.DecodeError, KeyError, TypeError):
                is_good = False
            if is_good:
                return bytes(raw)
            await asyncio.sleep(0)

    return received


def _is_camera(content: dict[str, Any]) -> bool:
    """Whether a camera message has all its parts and no other, finite numbers, an orientation and a usable size."""
    vectors = {"wxyz": 4, "position": 3, "look_at": 3, "up_direction": 3}
    numbers, sizes = ("fov", "near", "far"), ("image_height", "image_width")
    if set(content) != {"type", *vectors, *numbers, *sizes}:
        return False
    for name, length in vectors.items():
        values = content[name]
        if not isinstance(values, list) or len(values) != length or not all(map(_is_finite, values)):
            return False
    if not all(_is_finite(content[name]) for name in (*numbers, *sizes)) or not 0 < content["fov"] < np.pi:
        return False
    return any(content["wxyz"]) and all(1 <= content[name] <= 1 << 16 for name in sizes)


def _is_value(content: dict[str, Any]) -> bool:
    """Whether a message sets the value of a control, and nothing else, to one that is not long."""
    if set(content) != {"type", "uuid", "updates"} or not isinstance(content["uuid"], str):
        return False
    if not isinstance(content["updates"], dict) or list(content["updates"]) != ["value"]:
        return False
    value = content["updates"]["value"]
    values = value if isinstance(value, list) and len(value) <= MOST_VALUES else [value]
    return all(
        isinstance(each, bool) or _is_finite(each) or (isinstance(each, str) and len(each) <= LONGEST_TEXT)
        for each in values
    )


def _is_finite(value: Any) -> bool:
    """Whether a value is a number that a camera or a control may have."""
    return not isinstance(value, bool) and isinstance(value, (int, float)) and math.isfinite(value)


def _protocols(headers: Any) -> list[str]:
    """Subprotocols that a websocket offers; viser's page offers one that names its version."""
    return [each.strip() for header in headers.get_all("Sec-WebSocket-Protocol") for each in header.split(",")]


def _log_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exception handler of viser's event loop."""
    log.debug("viser: %s: %s", context.get("message"), context.get("exception"))


def sent_depth(depth: Float32[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Depths for ``set_background_image``, which hide what is behind them: few and rounded, since they are sent as PNG.

    What is infinitely far, at 0 or beyond ``MOST_DEPTH`` hides nothing.
    """
    step = -(-max(depth.shape) // DEPTH_SIZE)
    few = depth[step // 2 :: step, step // 2 :: step].astype(np.float64)
    within = (few > 0) & (few < MOST_DEPTH)
    whole = np.where(within, few, 1.0) * 1e5
    unit = np.exp2(np.floor(np.log2(whole)).clip(DEPTH_BITS) - DEPTH_BITS)
    rounded = (np.round(whole / unit) * unit + 0.5) * 1e-5  # viser rounds down
    return np.where(within, rounded, 2 * MOST_DEPTH)


def is_gone(client: Any) -> bool:
    """Whether a client has disconnected: what is sent to it then would never leave memory."""
    return bool(client._websock_connection.get_message_buffer().done)


def forget(server: Server, client: Any) -> None:
    """Remove a client that had disconnected before viser knew it: viser would keep it for ever."""
    with server.viser._client_lock:
        server.viser._connected_clients.pop(client.client_id, None)


@contextlib.contextmanager
def sending(client: Any) -> Iterator[None]:
    """Context in which messages to a client that disconnects meanwhile cause no warning."""
    with client._websock_connection.get_message_buffer().sanctioned_dead_writes():
        yield


def _no_tunnel(verbose: bool = True) -> None:
    """Replacement of ``request_share_url``: the viewer opens no public tunnel."""


class _Package:
    """The package ``websockets`` as one module sees it, with another function ``serve``."""

    def __init__(self, package: Any, serve: Callable[..., Any]) -> None:
        self._package = package
        self.asyncio = SimpleNamespace(server=SimpleNamespace(serve=serve))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._package, name)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Context in which an attribute has another value."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
