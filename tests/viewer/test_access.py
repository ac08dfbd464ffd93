"""Attacks on the viewer's server: other pages, other names, no token, tunnels, and messages that no page sends."""

import gc
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest

viser = pytest.importorskip("viser", reason="needs the extra viewer")

import msgspec  # noqa: E402
from viser import _viser  # noqa: E402
from websockets.exceptions import ConnectionClosed, InvalidStatus  # noqa: E402

from enerf.core.errors import InputError  # noqa: E402
from enerf.viewer import viser_server  # noqa: E402
from enerf.viewer.access import Access, Request  # noqa: E402
from enerf.viewer.viser_server import Server  # noqa: E402
from tests.viewer.sockets import CAMERA, until, websocket  # noqa: E402


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def public():
    """A server on all addresses."""
    made = Server(host="0.0.0.0")
    yield made
    made.stop()


def status(server: Server, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    """Answer to a request, without following redirections."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(Stay, urllib.request.ProxyHandler({}))
    address = f"http://127.0.0.1:{server.access.port}{path}"
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=20) as found:
            return found.status, dict(found.headers), found.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def refused(server: Server, **how: str | None) -> int:
    with pytest.raises(InvalidStatus) as caught, websocket(server, **how):
        pass
    return caught.value.response.status_code


def answers(opened) -> bool:
    """Whether a client is served: the scene is sent to it."""
    opened.send(msgspec.msgpack.encode(CAMERA))
    return len(opened.recv(timeout=20)) > 0


def clients(server: Server) -> int:
    return len(server.viser.get_clients())


def test_the_server_listens_on_this_computer_only(server):
    assert server.access.address == "127.0.0.1"
    assert server.access.token == ""
    assert server.address == f"http://127.0.0.1:{server.access.port}/"
    with pytest.raises(OSError, match=r".*"):  # another address of this computer
        socket.create_connection(("127.0.0.2", server.access.port), timeout=2).close()


def test_its_own_page_is_served_and_connects(server):
    code, headers, text = status(server)
    assert (code, headers["X-Frame-Options"], headers["Referrer-Policy"]) == (200, "DENY", "no-referrer")
    assert "connect-src 'self'" in headers["Content-Security-Policy"]
    assert "<html" in text
    with websocket(server) as opened:
        assert answers(opened)
        assert until(lambda: clients(server) == 1)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null", "http://127.0.0.1", None])
def test_the_websocket_of_another_page_is_refused(server, origin):
    assert refused(server, origin=origin) == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil:80"])
def test_another_name_of_this_computer_is_refused(server, host):
    name = host.format(port=server.access.port)
    assert refused(server, host=name) == 421
    assert status(server, Host=name)[0] == 421


def test_a_tunnel_of_the_user_is_let_in(server):
    assert status(server, Host="localhost:9999")[0] == 200
    with websocket(server, host="localhost:9999") as opened:
        assert answers(opened)


def test_an_address_cannot_make_the_page_connect_elsewhere(server):
    code, headers, _ = status(server, "/?websocket=ws://evil.example")
    assert (code, headers["Location"]) == (303, "/")


@pytest.mark.parametrize("path", ["/../viser_server.py", "/%2e%2e/%2e%2e/_viser.py", "/..\\..\\_viser.py"])
def test_files_beside_the_page_are_not_served(server, path):
    assert status(server, path)[0] == 404


def test_no_client_opens_a_public_tunnel(server, monkeypatch):
    opened: list[object] = []
    monkeypatch.setattr(_viser, "ViserTunnel", lambda *given: opened.append(given))
    with websocket(server) as client:
        assert answers(client)
        for kind in ("ShareUrlRequest", "ShareUrlDisconnect"):
            client.send(msgspec.msgpack.encode({"type": kind}))
        client.send(msgspec.msgpack.encode(CAMERA))
        assert until(lambda: clients(server) == 1)
    kinds = {kind.__name__ for kind in server.viser._websock_server._incoming_handlers}
    assert opened == []
    assert not any("Share" in kind for kind in kinds)
    assert server.viser.request_share_url() is None


def test_messages_that_no_page_sends_change_nothing(server, caplog, capfd):
    slider = server.viser.gui.add_slider("size", 1, 9, 1, 5)
    with websocket(server) as client:
        assert answers(client)
        bad = [
            b"\xc1",
            b"",
            msgspec.msgpack.encode([1]),
            msgspec.msgpack.encode(
                {"type": "GuiUpdateMessage", "uuid": slider._impl.uuid, "updates": {"update_cb": []}}
            ),
            msgspec.msgpack.encode({"type": "FileTransferStartUpload", "size_bytes": 1 << 40}),
            msgspec.msgpack.encode({**CAMERA, "fov": float("nan")}),
            msgspec.msgpack.encode({**CAMERA, "image_width": 1 << 40}),
            msgspec.msgpack.encode({**CAMERA, "position": "abc"}),
            msgspec.msgpack.encode({**CAMERA, "wxyz": (0.0, 0.0, 0.0, 0.0)}),
            msgspec.msgpack.encode({**CAMERA, "near": "abc"}),
            msgspec.msgpack.encode({key: value for key, value in CAMERA.items() if key != "far"}),
            msgspec.msgpack.encode({**CAMERA, "more": 1}),
            *(
                msgspec.msgpack.encode({"type": "GuiUpdateMessage", "uuid": uuid, "updates": {"value": value}})
                for uuid, value in ((slider._impl.uuid, "abc"), (slider._impl.uuid, float("nan")), ([], 6), ("no", 6))
            ),
        ]
        for message in bad:
            client.send(message)
        client.send("text")
        good = {"type": "GuiUpdateMessage", "uuid": slider._impl.uuid, "updates": {"value": 7}}
        client.send(msgspec.msgpack.encode(good))
        assert until(lambda: slider.value == 7)
        assert isinstance(slider._impl.update_cb, list)
    slider.remove()
    gc.collect()  # asyncio speaks of errors that nobody has asked for when they are deleted
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_page_of_another_version_is_refused_and_nothing_is_printed(server, capfd):
    assert refused(server, version="1.0.0") == 400
    assert refused(server, version="") == 400
    assert capfd.readouterr().out == ""


def test_a_huge_message_ends_its_connection(server):
    with websocket(server) as client:
        assert answers(client)
        client.send(bytes(viser_server.LARGEST_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            list(iter(lambda: client.recv(timeout=20), None))


def test_other_computers_need_the_token(public):
    assert public.access.token in public.address
    assert status(public)[0] == 401
    assert status(public, "/?token=")[0] == 401
    assert status(public, "/?token=wrong")[0] == 401
    assert status(public, Cookie=f"{public.access.cookie}=wrong")[0] == 401
    assert refused(public) == 401
    assert refused(public, Cookie=f"{public.access.cookie}=") == 401


def test_the_token_of_the_address_becomes_a_cookie_that_lets_in(public):
    code, headers, _ = status(public, f"/?token={public.access.token}")
    assert (code, headers["Location"]) == (303, "/")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict"} <= set(attributes)
    assert status(public, Cookie=cookie)[0] == 200
    with websocket(public, Cookie=cookie) as opened:
        assert answers(opened)
    assert refused(public, Cookie=cookie, origin="http://evil.example") == 403


def test_more_clients_than_allowed_are_refused(server, monkeypatch):
    monkeypatch.setattr(viser_server, "MOST_CLIENTS", 1)
    with websocket(server) as opened:
        assert answers(opened)
        assert refused(server) == 503


def test_two_headers_of_a_kind_are_refused():
    access = Access("127.0.0.1", 80, "")
    own = {"path": "/", "cookies": [], "is_websocket": True}
    assert access.answer_to(Request(hosts=["localhost"], origins=["http://localhost"], **own)) is None
    for hosts, origins in (
        (["localhost"] * 2, ["http://localhost"]),
        (["localhost"], ["http://localhost"] * 2),
        ([], []),
    ):
        assert access.answer_to(Request(hosts=hosts, origins=origins, **own)) is not None


def test_depths_that_are_sent_are_precise_to_a_share_and_hide_nothing_where_there_is_none():
    rng = np.random.default_rng(0)
    depth = (10 ** rng.uniform(-2, 2.2, (60, 80))).astype(np.float32)
    sent = viser_server.sent_depth(depth)
    assert np.abs(sent / depth - 1).max() < 2**-9
    depth[0], depth[1], depth[2] = np.inf, 0.0, 1000.0
    assert (viser_server.sent_depth(depth)[:3] > viser_server.MOST_DEPTH).all()
    large = np.tile(np.arange(1.0, 1009.0, dtype=np.float32), (756, 1))
    assert viser_server.sent_depth(large).shape == (189, 252)
    assert viser_server.sent_depth(large / 10)[0, 1] == pytest.approx(0.7, abs=0.01)  # the middle of 0.5 to 0.8


def test_a_port_that_is_taken_is_one_sentence(server):
    with pytest.raises(InputError, match=r"options --host and --port: 127\.0\.0\.1 with \d+ cannot be used"):
        Server(port=server.access.port)
    with pytest.raises(InputError, match=r"option --host: found 'no\.such\.host\.invalid', expected"):
        Server(host="no.such.host.invalid")


def test_another_version_of_viser_is_one_sentence(monkeypatch):
    monkeypatch.setattr(viser, "__version__", "1.0.0")
    with pytest.raises(InputError, match=r"needs viser 1\.1\.1: found 1\.0\.0, expected the extra viewer"):
        Server()


def test_a_missing_viser_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    with pytest.raises(InputError, match=r"the package viser: found none, expected .* pip install 'enerf\[viewer\]'"):
        viser_server.require()
