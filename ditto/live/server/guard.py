"""Who may ask: the token, the names this server answers to, and the headers every answer carries."""

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
<title>ditto: token wanted</title><h1>Token wanted</h1><p>{text}</p>
<form><label>Token <input name="token" type="password" autocomplete="off" autofocus required></label>
<button>Enter</button></form></html>"""


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str) -> None:
    """Refuse to be open to others without a good token.

    Raises:
        InputError: no token for an address that others reach, or one that is too short or cannot be sent.
    """
    if not token:
        if is_loopback(host):
            return
        raise InputError(
            f"a token is wanted where others can connect, --host {host} has none; add --token auto, or --token with "
            f"{SHORTEST_TOKEN} characters or more (or set DITTO_TOKEN)"
        )
    if len(token) < SHORTEST_TOKEN or not all(letter.isalnum() or letter in "_-." for letter in token):
        raise InputError(
            f"a token has at least {SHORTEST_TOKEN} letters, digits, _, - or ., got {len(token)} characters; "
            "--token auto makes one"
        )


class Guard:
    """ASGI middleware: lets through who has the token, or with none, who asks this machine by its own name.

    A browser sends the origin of the page that asks: another site's requests are refused, so no page elsewhere can
    use the server through the browser of someone who may (nor by giving its own name this machine's address).
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        policy = content_policy(headers.get("host", ""))
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        refused = self._refusal(scope, headers, given)

        async def guarded(message: Message) -> None:
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
            await self._app(scope, receive, guarded)
            return
        status, code, text = refused
        if status == 401 and scope["type"] == "http" and scope["path"] == "/":
            body, kind = ASK.format(text=html.escape(text)).encode(), b"text/html; charset=utf-8"
        else:
            body = json.dumps({"error": {"type": "error", "code": code, "text": text}}).encode()
            kind = b"application/json"
        prefix = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        await guarded({"type": f"{prefix}.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": f"{prefix}.body", "body": body})

    def _refusal(self, scope: Scope, headers: dict[str, str], given: str) -> tuple[int, str, str] | None:
        if self._token:
            if not self._has_token(headers, given):
                return 401, "token", "this server wants its token: it was printed or chosen where it was started"
        elif not is_loopback(urlsplit(f"//{headers.get('host', '')}").hostname or ""):
            return 403, "host", "without a token this server answers to localhost and 127.0.0.1 only; use that address"
        origin = headers.get("origin")
        asks = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if asks and origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
            return 403, "origin", "another site's page may not use this server; open its own page"
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


def content_policy(host: str) -> str:
    """The page takes nothing from anywhere else. (The socket is named for browsers whose 'self' leaves it out.)"""
    name = host if host and all(letter.isalnum() or letter in ".:-[]" for letter in host) else ""
    sockets = f" ws://{name} wss://{name}" if name else ""
    return (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' blob:; "
        f"media-src 'self' blob:; connect-src 'self'{sockets}; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    )
