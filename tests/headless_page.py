"""A page in headless Chromium, driven over the DevTools protocol; for tests of pages that open from disk."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--remote-allow-origins=*", "--remote-debugging-port=0"),
)
SECONDS = 60.0


class HeadlessPage:
    """One tab: what it logs is collected in ``messages``, what it requests in ``requests``."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._count = socket, 0
        self.messages: list[str] = []
        self.requests: list[str] = []
        self._events: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are recorded."""
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=SECONDS))
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            self._record(message)

    def open(self, path: Path) -> None:
        """Open a file and wait until it has been loaded."""
        self._events.clear()
        self.send("Page.navigate", url=path.resolve().as_uri())
        while "Page.loadEventFired" not in self._events:
            self._record(json.loads(self._socket.recv(timeout=SECONDS)))
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, expression: str) -> Any:
        """Value of an expression, awaited if it is a promise."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def key(self, name: str) -> None:
        """Press and release a key."""
        code = {"ArrowLeft": 37, "ArrowRight": 39, "Tab": 9, "End": 35, "Home": 36}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag with the left mouse button, in pixels of the window."""
        for kind, (x, y), down in (("mousePressed", start, 1), ("mouseMoved", end, 1), ("mouseReleased", end, 0)):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=down, clickCount=1)

    def resize(self, width: int, height: int, *, dark: bool = False, media: str = "") -> None:
        """Set the size of the window, the color scheme, and the medium, ``print`` or ``screen``."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the whole page, or of the window, as PNG."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        """Print the page to a PDF file."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=False)["data"]))

    def _record(self, message: dict[str, Any]) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(each.get("value", each)) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(str(params["entry"]["text"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:100])


@contextmanager
def headless_page(folder: Path) -> Iterator[HeadlessPage]:
    """Start Chromium with a profile in a folder; skips the test where there is no Chromium or no websockets."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    client = pytest.importorskip("websockets.sync.client", reason="the package websockets is not installed")
    profile = folder / "profile"
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with client.connect(_address(profile, process), max_size=None, compression=None) as socket:
            yield HeadlessPage(socket)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def _address(profile: Path, process: "subprocess.Popen[bytes]") -> str:
    """Address of the first tab, as soon as Chromium listens."""
    listening, end = profile / "DevToolsActivePort", time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, ValueError, StopIteration):
            port = int(listening.read_text().split()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=SECONDS) as answer:
                tabs = json.load(answer)
            return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
        time.sleep(0.1)
    raise RuntimeError("Chromium did not start")
