"""What clients get that draw the frames themselves (`video: "motion"`), and who may have it.

Whoever has a packed portrait owns a puppet: it says anything, offline, for ever, and nobody can label or stop it. So a server
gives out none unless it is told to (docs/serve.md, "Drawing at the client").
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Request, Response

from ditto.errors import InputError
from ditto.live.server.portraits import DEFAULT
from ditto.live.server.protocol import JsonObject, ProtocolError
from ditto.once import Once
from ditto.performer import Capability

if TYPE_CHECKING:
    from ditto.portrait.portrait import Portrait
    from ditto.talking_head import TalkingHead

logger = logging.getLogger(__name__)

POLICIES = NONE, UPLOADED, ALL = "none", "uploaded", "all"
CORE = "core.wasm"
FOR_EVER = "private, max-age=31536000, immutable"  # of a URL that names the hash of its content; no shared cache keeps a face
GZIP_LEVEL = 6


def check_client_drawing(policy: str, record: Path | None = None) -> None:
    """Raise InputError for an unknown policy, or for one that gives portraits out where conversations are recorded."""
    if policy not in POLICIES:
        raise InputError(f"expected --client-drawing {', '.join(POLICIES)}, got {policy!r}; choose one of them")
    if policy != NONE and record is not None:
        raise InputError(
            "expected --record or --client-drawing, got both: what clients draw cannot be recorded here; leave one out"
        )


@dataclass(frozen=True)
class Asset:
    """Bytes that clients fetch once and keep.

    Attributes:
        data: as clients use them.
        compressed: with gzip; None if they are compressed as they are.
        sha256: of `data`, 64 hexadecimal digits.
    """

    data: bytes = field(repr=False)
    compressed: bytes | None = field(default=None, repr=False)
    sha256: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())

    def at(self, url: str) -> JsonObject:
        """How a message names it."""
        return {"url": url, "sha256": self.sha256, "bytes": len(self.data)}

    def response(self, request: Request, cache_control: str) -> Response:
        """The answer to a GET; without the bytes where the client has them."""
        packed = self.compressed if accepts_gzip(request) else None
        headers = {
            "etag": f'"{self.sha256}"' if packed is None else f'"{self.sha256}-gzip"',
            "cache-control": cache_control,
            "vary": "accept-encoding",
        }
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if headers["etag"] in known:
            return Response(status_code=304, headers=headers)
        if packed is not None:
            headers["content-encoding"] = "gzip"
        return Response(self.data if packed is None else packed, media_type="application/octet-stream", headers=headers)


def accepts_gzip(request: Request) -> bool:
    """Whether a client takes gzip."""
    for offer in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = offer.replace(" ", "").lower().partition(";q=")
        if coding == "gzip":
            return not weight or weight.strip("0.") != ""
    return False


def core_of(page: Path) -> JsonObject | None:
    """How messages name the core in WebAssembly; None if it is not installed, or is not the one of `core.wasm.sha256`."""
    try:
        core, said = Asset((page / CORE).read_bytes()), (page / f"{CORE}.sha256").read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return None
    if said[:1] != [core.sha256]:
        logger.error("expected %s with the SHA-256 of %s.sha256, got another file; install ditto again", page / CORE, CORE)
        return None
    return core.at(f"/page/{CORE}")


class ClientDrawing:
    """Gives packed portraits and the bundle's model to the clients that may draw themselves.

    Args:
        head: of all sessions.
        policy: "none"; "uploaded": portraits that clients brought; "all": the server's own too.
        core: as `core_of` gives it.

    Attributes:
        policy, core: as given.

    Raises:
        InputError: the bundle has no packed portraits, and the policy is not "none".
    """

    def __init__(self, head: TalkingHead, policy: str, core: JsonObject | None) -> None:
        self.policy, self.core = policy, core
        self._head = head
        self._packed: Once[Portrait, Asset] = Once()
        self._model: Asset | None = None
        if policy != NONE:
            model = head.model_pack()
            self._model = Asset(model, gzip.compress(model, GZIP_LEVEL, mtime=0))

    def check(self, name: str) -> None:
        """Raise ProtocolError unless clients may draw the portrait of this id."""
        if Capability.MOTION not in self._head.performer.supports:
            raise ProtocolError(
                "motion_unsupported",
                'expected a bundle with explicit motion for video "motion", got one without; ask for video "jpeg"',
                422,
            )
        if self.policy != ALL and (self.policy == NONE or name == DEFAULT):
            raise ProtocolError(
                "motion_refused",
                f"expected a portrait that this server gives out (--client-drawing {self.policy}), got another one; "
                'ask for video "jpeg"',
                403,
            )

    def prepare(self, portrait: Portrait) -> None:
        """Pack a portrait, if clients may draw any, so that its first session does not wait for that; takes about a second."""
        if self.policy != NONE:
            self._packed.get(portrait, self._pack)

    async def appearance(self, name: str, portrait: Portrait) -> Asset:
        """A packed portrait; the first call takes about a second. Raises ProtocolError as `check` does."""
        self.check(name)
        return await asyncio.to_thread(self._packed.get, portrait, self._pack)

    def model(self, sha256: str) -> Asset:
        """The bundle's model. Raises ProtocolError if nothing is given out, or for another hash."""
        if self._model is None:
            self.check(DEFAULT)
        if self._model is None or sha256 != self._model.sha256:
            text = "expected the hash of this server's model, got another; start a session again"
            raise ProtocolError("not_found", text, 404)
        return self._model

    async def ready(self, name: str, portrait: Portrait) -> JsonObject:
        """What the message "ready" has for a client that draws: where to fetch portrait, model and core. Raises as `check`."""
        packed = await self.appearance(name, portrait)
        assert self._model is not None
        return {
            "appearance": packed.at(f"/api/portraits/{name}/appearance?sha256={packed.sha256}"),
            "model": self._model.at(f"/api/model/{self._model.sha256}"),
            "core": self.core,
        }

    def _pack(self, portrait: Portrait) -> Asset:
        return Asset(self._head.pack(portrait))
