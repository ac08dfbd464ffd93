"""Who may talk to the viewer's server: rules for the headers of HTTP and websocket requests.

A browser sends requests to this computer on behalf of any page that it shows. So every request has to name this server
(``Host``: a name of another server that resolves to this computer is DNS rebinding), and a websocket has to come from
the viewer's own page (``Origin``). On an address that other computers reach, a token is needed as well: it is in the
printed address, and moves from there to a cookie, which the page's websocket sends.
"""

import hmac
import http.cookies
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Request:
    """The parts of a request that decide: path with query, values of the headers, whether it opens a websocket."""

    path: str
    hosts: Sequence[str]
    origins: Sequence[str]
    cookies: Sequence[str]
    is_websocket: bool


@dataclass(frozen=True)
class Answer:
    """Answer in the place of the page: status, text, and headers."""

    status: int
    text: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Access:
    """Rules of one server.

    Attributes
    ----------
    address
        Numeric address that the server listens on.
    port
        Its port.
    token
        What a request has to present; empty on a loopback address, where none is needed.
    """

    address: str
    port: int
    token: str

    @property
    def is_local(self) -> bool:
        """Whether only this computer reaches the server."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def cookie(self) -> str:
        """Name of the cookie that keeps the token: cookies are shared by all ports of a host."""
        return f"enerf_viewer_{self.port}"

    def answer_to(self, request: Request) -> Answer | None:
        """Answer that refuses or redirects a request; None if it may pass."""
        host = request.hosts[0].lower() if len(request.hosts) == 1 else ""
        if not host or (self.is_local and not self._is_own(host)):
            return refusal(421, "the address of this page does not name this server")
        if request.is_websocket and len(request.origins) != 1:
            return refusal(403, "a websocket needs one Origin")
        if any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in request.origins):
            return refusal(403, "requests of other pages are refused")
        query = parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        if self.token and not self._has_cookie(request):
            return self._answer_to_token("" if request.is_websocket else query.get("token", [""])[0])
        # a query would make the page connect to a server that its address names
        return Answer(303, "", {"Location": "/"}) if query and not request.is_websocket else None

    def _answer_to_token(self, given: str) -> Answer:
        """Answer to a request without the cookie: the cookie, if the address has the token."""
        if not self._is_token(given):
            return refusal(401, "the address needs the token that the viewer has printed")
        keep = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
        return Answer(303, "", {"Location": "/", "Set-Cookie": keep})

    def _is_own(self, host: str) -> bool:
        """Whether a Host header has a local name; its port may be that of a tunnel."""
        name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
        bound = f"[{self.address}]" if ":" in self.address else self.address
        return name in LOCAL_NAMES or name == bound

    def _has_cookie(self, request: Request) -> bool:
        for header in request.cookies:
            try:
                found = http.cookies.SimpleCookie(header).get(self.cookie)
            except http.cookies.CookieError:
                continue
            if found is not None and self._is_token(found.value):
                return True
        return False

    def _is_token(self, value: str) -> bool:
        return hmac.compare_digest(value.encode(), self.token.encode())


def access_for(address: str, port: int) -> Access:
    """Rules for a server that listens on a numeric address; with a new token if other computers reach it."""
    token = "" if ipaddress.ip_address(address).is_loopback else secrets.token_urlsafe(24)
    return Access(address, port, token)


def refusal(status: int, text: str) -> Answer:
    """Answer that refuses a request."""
    return Answer(status, f"enerf view: {text}\n", {"Content-Type": "text/plain; charset=utf-8"})


def page_headers(host: str) -> dict[str, str]:
    """Headers of the page: it connects to its own server only, is not framed, and its address is not passed on."""
    policy = (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        f"connect-src 'self' ws://{host} wss://{host} data: blob:; frame-ancestors 'none'; form-action 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
