"""Access control: the token, the host names that the server answers to, origins, and the headers of every response."""

from __future__ import annotations

import html
import ipaddress
import json
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ditto.errors import InputError

SHORTEST_TOKEN = 16
COOKIE = "ditto_token"
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cache-control": "no-store",
}
ASK = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ditto: token needed</title><h1>Token needed</h1><p>{text}</p>
<form><label>Token <input name="token" type="password" autocomplete="off" autofocus required></label>
<button>Enter</button></form></html>"""


def is_loopback(host: str) -> bool:
    """Whether a host name or address is a loopback one."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str) -> None:
    """Check the token for an address to listen at.

    Raises:
        InputError: no token for an address that other machines reach; a token that is short or has other characters.
    """
    if not token:
        if is_loopback(host):
            return
        raise InputError(
            f"expected a token, as other machines can connect to --host {host}, got none; add --token auto, or --token with "
            f"{SHORTEST_TOKEN} characters or more (or set DITTO_TOKEN)"
        )
    if len(token) < SHORTEST_TOKEN or not all(letter.isalnum() or letter in "_-." for letter in token):
        raise InputError(
            f"expected a token of at least {SHORTEST_TOKEN} letters, digits, _, - or ., got {len(token)} characters; "
            "--token auto makes one"
        )


class AccessControl:
    """ASGI middleware: passes requests with the token; without a token, requests to a loopback host name.

    It refuses requests from pages of other origins. So no other site can use the server through a user's browser, not
    even by DNS rebinding (pointing its own name at this machine).

    Args:
        app: the application.
        token: that requests must carry, or "".
        wasm: whether the page may run WebAssembly.
    """

    def __init__(self, app: ASGIApp, token: str, wasm: bool = False) -> None:
        self._app = app
        self._wasm = wasm
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        policy = content_policy(headers.get("host", ""), self._wasm)
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        refused = self._refusal(scope, headers, given)

        async def send_secured(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                extra = SECURITY | {"content-security-policy": policy}
                if given and refused is None:
                    secure = "; Secure" if scope.get("scheme") in ("https", "wss") else ""
                    extra["set-cookie"] = f"{COOKIE}={given}; Path=/; HttpOnly; SameSite=Strict{secure}"
                had = {name for name, _ in message["headers"]}
                message["headers"] = list(message["headers"]) + [
                    (name.encode(), value.encode("latin-1")) for name, value in extra.items() if name.encode() not in had
                ]
            await send(message)

        if refused is None:
            await self._app(scope, receive, send_secured)
            return
        status, code, text = refused
        if status == 401 and scope["type"] == "http" and scope["path"] == "/":
            body, kind = ASK.format(text=html.escape(text)).encode(), b"text/html; charset=utf-8"
        else:
            body = json.dumps({"error": {"type": "error", "code": code, "text": text}}).encode()
            kind = b"application/json"
        prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await send_secured({"type": f"{prefix}.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": f"{prefix}.body", "body": body})

    def _refusal(self, scope: Scope, headers: dict[str, str], given: str) -> tuple[int, str, str] | None:
        if self._token:
            if not self._has_token(headers, given):
                return 401, "token", "expected the token of this server, got none or another; ask who started the server"
        elif not is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or ""):
            return 403, "host", "expected the host localhost or 127.0.0.1 (this server has no token); use that address"
        origin = headers.get("origin")
        asks = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if asks and origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
            return 403, "origin", "expected a request of this server's own page, got one of another site; open the page"
        return None

    def _has_token(self, headers: dict[str, str], given: str) -> bool:
        offered = [given]
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            offered.append(bearer.strip())
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
            offered.append(cookie.value if cookie else "")
        except CookieError:
            pass
        return any(secrets.compare_digest(one.encode(), self._token) for one in offered)


def content_policy(host: str, wasm: bool) -> str:
    """Content-Security-Policy: nothing from other servers. Names the WebSocket for browsers whose 'self' leaves it out."""
    scripts = "'self' 'wasm-unsafe-eval'" if wasm else "'self'"
    name = host if host and all(letter.isalnum() or letter in ".:-[]" for letter in host) else ""
    sockets = f" ws://{name} wss://{name}" if name else ""
    return (
        f"default-src 'none'; script-src {scripts}; worker-src 'self'; style-src 'self'; img-src 'self' blob:; "
        f"media-src 'self' blob:; connect-src 'self'{sockets}; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
