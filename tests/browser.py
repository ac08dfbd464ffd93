"""A browser for tests: Chromium, headless, with software GL, driven over the DevTools protocol.

    with browser.launched() as chrome:      # skips the test where no Chromium is found
        page = chrome.open("file:///.../index.html", width=800, height=600)
        page.wait_for("window.ready")
        page.drag((100, 100), (200, 120))
        picture = page.screenshot()          # (h, w, 3) bytes
        assert page.messages == []           # console messages, uncaught exceptions, failed requests

Needs the package websockets, which viser brings along.
"""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-component-update"),
    *("--disable-background-networking", "--disable-sync", "--mute-audio", "--hide-scrollbars", "--no-proxy-server"),
    *("--disable-dev-shm-usage", "--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    "--disable-backgrounding-occluded-windows",
)
# What Chromium says about its own drawing, not the page.
IGNORED = ("GPU stall due to ReadPixels", "Automatic fallback to software WebGL", "GL Driver Message")
SECONDS = 60.0  # longest wait: other programs may keep the cores busy


def executable() -> str | None:
    """Path of a Chromium, or None; the variable ``ENERF_CHROMIUM`` names one that is not in the search path."""
    found = [os.environ.get("ENERF_CHROMIUM"), *(shutil.which(name) for name in NAMES)]
    return next((path for path in found if path), None)


@contextmanager
def launched(*flags: str) -> Iterator["Browser"]:
    """A running browser; skips the test where none is found."""
    path = executable()
    if path is None:
        pytest.skip("no Chromium is found: apt install chromium, or name it by ENERF_CHROMIUM")
    pytest.importorskip("websockets", reason="the DevTools client needs the package websockets")
    folder = tempfile.mkdtemp(prefix="enerf_browser_")
    command = [path, *FLAGS, *flags, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    chrome = None
    try:
        chrome = Browser(_address(Path(folder) / "DevToolsActivePort", process))
        yield chrome
    finally:
        if chrome is not None:
            chrome.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _address(file: Path, process: subprocess.Popen) -> str:
    """Address of the DevTools, which the browser writes to a file when it is ready."""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends and process.poll() is None:
        lines = file.read_text().split() if file.is_file() else []
        if len(lines) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.05)
    raise RuntimeError(f"Chromium did not start: exit code {process.poll()}")


class Browser:
    """A connection to a browser; ``open`` makes pages, each in a profile of its own if ``fresh``."""

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=1 << 28, proxy=None, open_timeout=SECONDS)
        self._ids, self._answers = itertools.count(1), {}
        self._arrived, self._pages = threading.Condition(), {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def open(
        self, url: str, *, width: int = 800, height: int = 600, fresh: bool = False, phone: bool = False
    ) -> "Page":
        """Open a page at a size in pixels; ``phone``: with touch and twice the pixels."""
        where = {"browserContextId": self.call("Target.createBrowserContext")["browserContextId"]} if fresh else {}
        target = self.call("Target.createTarget", url="about:blank", **where)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        self._pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height, phone=phone)
        page.go(url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result.

        Raises
        ------
        RuntimeError
            If the browser answers with an error, or not in time.
        """
        number = next(self._ids)
        sent = {"id": number, "method": method, "params": parameters}
        self._socket.send(json.dumps(sent | ({"sessionId": session} if session else {})))
        with self._arrived:
            if not self._arrived.wait_for(lambda: number in self._answers, SECONDS):
                raise RuntimeError(f"{method}: no answer in {SECONDS:g} s")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer.get("result", {})

    def close(self) -> None:
        """End the browser."""
        with suppress(Exception):
            self._socket.send(json.dumps({"id": next(self._ids), "method": "Browser.close"}))
        self._reader.join(5)
        with suppress(Exception):
            self._socket.close()

    def _read(self) -> None:
        with suppress(Exception):  # the connection is closed
            for text in self._socket:
                message = json.loads(text)
                if "id" in message:
                    with self._arrived:
                        self._answers[message["id"]] = message
                        self._arrived.notify_all()
                elif message.get("sessionId") in self._pages:
                    self._pages[message["sessionId"]].received(message["method"], message["params"])


class Page:
    """One page.

    Attributes
    ----------
    messages
        Errors and warnings of the console, uncaught exceptions and failed requests, as texts.
    logged
        Other messages of the console.
    requests
        Addresses of all requests.
    """

    def __init__(self, chrome: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = chrome, target, session
        self.messages: list[str] = []
        self.logged: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self._session, **parameters)

    def received(self, method: str, parameters: dict[str, Any]) -> None:
        """Record an event."""
        if method == "Runtime.consoleAPICalled":
            words = [str(each.get("value", each.get("description", ""))) for each in parameters["args"]]
            self._record(" ".join(words), parameters["type"] in ("error", "warning", "assert"))
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self._record(str(details.get("exception", {}).get("description", details["text"])), True)
        elif method == "Log.entryAdded":
            entry = parameters["entry"]
            self._record(f"{entry['text']} {entry.get('url', '')}".strip(), entry["level"] in ("error", "warning"))
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"][:200])  # data: addresses are long

    def _record(self, text: str, is_bad: bool) -> None:
        if not any(part in text for part in IGNORED):
            (self.messages if is_bad else self.logged).append(text)

    def go(self, url: str) -> None:
        """Navigate and wait until the page is loaded."""
        error = self.call("Page.navigate", url=url).get("errorText")
        assert error is None, f"{url}: {error}"
        self.wait_for("document.readyState === 'complete'")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Set the size of the page in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone},
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression, awaited if it is a promise.

        Raises
        ------
        RuntimeError
            If it throws.
        """
        done = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def wait_for(self, expression: str, seconds: float = SECONDS) -> Any:
        """First true value of an expression.

        Raises
        ------
        TimeoutError
            If there is none in time.
        """
        ends, error = time.monotonic() + seconds, ""
        while time.monotonic() < ends:
            try:
                if value := self.evaluate(expression):
                    return value
            except RuntimeError as thrown:
                error = f" ({thrown})"
            time.sleep(0.1)
        raise TimeoutError(f"not true within {seconds:g} s: {expression}{error}")

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """The page as (h, w, 3) bytes, RGB; also written as PNG to ``path``."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(data)
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]

    def mouse(self, kind: str, x: float, y: float, *, button: str = "none", **more: Any) -> None:
        """Send a mouse event: ``mousePressed``, ``mouseReleased``, ``mouseMoved``, ``mouseWheel``."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, **more)

    def click(self, x: float, y: float, *, button: str = "left") -> None:
        """Click at a position."""
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button=button, buttons=1, clickCount=1)
        self.mouse("mouseReleased", x, y, button=button, clickCount=1)

    def drag(
        self, start: tuple[float, float], end: tuple[float, float], *, steps: int = 8, button: str = "left"
    ) -> None:
        """Press at ``start``, move in steps, release at ``end``."""
        (x, y), (to_x, to_y) = start, end
        held = {"left": 1, "right": 2, "middle": 4}[button]
        self.mouse("mouseMoved", x, y)
        self.mouse("mousePressed", x, y, button=button, buttons=held, clickCount=1)
        for i in range(1, steps + 1):
            at = (x + (to_x - x) * i / steps, y + (to_y - y) * i / steps)
            self.mouse("mouseMoved", *at, button=button, buttons=held)
        self.mouse("mouseReleased", to_x, to_y, button=button, clickCount=1)

    def wheel(self, x: float, y: float, amount: float) -> None:
        """Turn the wheel; a positive amount scrolls down."""
        self.mouse("mouseWheel", x, y, deltaX=0, deltaY=amount)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """Send a touch event, ``touchStart``, ``touchMove`` or ``touchEnd``, with the fingers' positions."""
        fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    def key(self, key: str, *, seconds: float = 0.0) -> None:
        """Press a key, such as ``ArrowLeft``, ``r`` or ``Enter``, and release it after some seconds."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}
        is_text = len(key) == 1
        code = f"Key{key.upper()}" if is_text and key.isalpha() else key
        number = ord(key.upper()) if is_text else codes.get(key, 0)
        what: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        text = {"text": key} if is_text else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **what, **text)
        time.sleep(seconds)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def write(self, text: str) -> None:
        """Insert a text into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def click_on(self, expression: str) -> None:
        """Click at the middle of the element that an expression gives."""
        box = f"(() => {{ const e = {expression}; e.scrollIntoView({{block: 'center'}}); "
        x, y = self.evaluate(
            box + "const b = e.getBoundingClientRect(); return [b.x + b.width/2, b.y + b.height/2] })()"
        )
        self.click(x, y)

    def close(self) -> None:
        """Close the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)
