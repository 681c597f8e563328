"""The portraits of a server: its default, and the uploaded ones that were used last."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import cv2

from ditto.live.server.limits import MAX_PORTRAITS, MAX_WAITING_PORTRAITS
from ditto.live.server.protocol import ProtocolError
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead

DEFAULT = "default"
SHIPPED = Path(__file__).with_name("page") / "portrait.jpg"


class Portraits:
    """Portraits by id. Ids of uploads are random, so that only those who know an id can use its portrait.

    Args:
        head: of all sessions.
        default: for clients that name none.
        max_size: longest side of uploaded ones, in pixels.
        prepare: called with each uploaded one, in a thread.
    """

    def __init__(
        self, head: TalkingHead, default: Portrait, max_size: int, prepare: Callable[[Portrait], object]
    ) -> None:
        self._head = head
        self._prepare = prepare
        self._max_size = max_size
        self._default = default
        self._kept: OrderedDict[str, Portrait] = OrderedDict()
        self._finding = asyncio.Lock()
        self._waiting = 0

    def __getitem__(self, name: str) -> Portrait:
        """A portrait by id. Raises ProtocolError for an unknown id."""
        if name == DEFAULT:
            return self._default
        if name not in self._kept:
            raise ProtocolError("no_portrait", "expected the id of a portrait, got an unknown one; upload it again", 404)
        self._kept.move_to_end(name)
        return self._kept[name]

    async def add(self, data: bytes, any_face: bool = False) -> tuple[str, Portrait]:
        """Register the face of an uploaded picture; its id and portrait.

        Args:
            data: the picture file.
            any_face: whether to take the largest of several faces; if not, several faces are an error.

        Raises:
            ProtocolError: several faces, or too many uploads at once.
            ImageError, NoFaceError: as `TalkingHead.register` raises.
        """
        if self._waiting >= MAX_WAITING_PORTRAITS:
            raise ProtocolError("busy", f"{MAX_WAITING_PORTRAITS} uploads are under way, the most allowed; try again", 503)
        self._waiting += 1
        try:
            async with self._finding:
                portrait = await asyncio.to_thread(self._register, data, any_face)
        finally:
            self._waiting -= 1
        name = secrets.token_urlsafe(12)
        self._kept[name] = portrait
        while len(self._kept) > MAX_PORTRAITS:
            self._kept.popitem(last=False)
        return name, portrait

    def _register(self, data: bytes, any_face: bool) -> Portrait:
        if not any_face:
            from ditto.media.images import read_picture
            from ditto.portrait.registration import find_faces

            count = len(find_faces(read_picture(data, self._max_size)[0]))
            if count > 1:
                raise ProtocolError(
                    "several_faces",
                    f"expected one face in the picture, got {count} faces; crop it to one, or take the largest",
                    409,
                )
        portrait = self._head.register(data, max_size=self._max_size)
        self._head.appearance(portrait)  # now, so that the first session does not wait for it
        self._prepare(portrait)
        return portrait


def preview(portrait: Portrait) -> bytes:
    """The portrait's picture as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(portrait.picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    return data.tobytes()
