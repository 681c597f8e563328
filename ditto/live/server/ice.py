"""STUN and TURN servers, which help a browser and this server to find a path to each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from aiortc import RTCConfiguration, RTCIceServer

from ditto.errors import InputError

FORM = "stun:HOST[:PORT] or turn:USER:PASSWORD@HOST[:PORT][?transport=udp|tcp]"
HOST = r"(?:\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+)"
STUN = re.compile(rf"stun:{HOST}(?::\d{{1,5}})?")
TURN = re.compile(rf"(turns?):([^:@\s]+):([^\s]+)@({HOST}(?::\d{{1,5}})?(?:\?transport=(?:udp|tcp))?)")


@dataclass(frozen=True)
class IceServer:
    """A server, as `RTCPeerConnection` takes it. `credential` is not shown in messages."""

    urls: str
    username: str = ""
    credential: str = ""

    @property
    def for_page(self) -> dict[str, str]:
        """As JSON, for a browser."""
        secret = {"username": self.username, "credential": self.credential} if self.username else {}
        return {"urls": self.urls, **secret}


def parse_ice_server(text: str) -> IceServer:
    """A server as the command line gives it. A name or password with special characters is percent-encoded.

    Raises:
        InputError: another form.
    """
    if STUN.fullmatch(text):
        return IceServer(text)
    if found := TURN.fullmatch(text):
        scheme, user, password, place = found.groups()
        return IceServer(f"{scheme}:{place}", unquote(user), unquote(password))
    shown = re.sub(r":[^:@]*@", ":...@", text)  # without the password
    raise InputError(f"expected --ice-server as {FORM}, got {shown!r}; write it so")


def configuration(servers: tuple[IceServer, ...]) -> RTCConfiguration:
    """For this side. aiortc uses the first STUN and the first TURN server."""
    return RTCConfiguration(
        iceServers=[
            RTCIceServer(urls=server.urls, username=server.username or None, credential=server.credential or None)
            for server in servers
        ]
    )
