"""The portraits a server knows: its own, and those that were uploaded, for as long as there is room."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from pathlib import Path

import cv2

from ditto.live.server.limits import MOST_PORTRAITS, MOST_WAITING_PORTRAITS
from ditto.live.server.protocol import ProtocolError
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead

DEFAULT = "default"
SHIPPED = Path(__file__).with_name("page") / "portrait.jpg"


class Portraits:
    """Portraits by id. Ids are random: who does not know one cannot have it."""

    def __init__(self, head: TalkingHead, default: Portrait, max_size: int) -> None:
        self._head = head
        self._max_size = max_size
        self._default = default
        self._kept: OrderedDict[str, Portrait] = OrderedDict()
        self._finding = asyncio.Lock()
        self._waiting = 0

    def __getitem__(self, name: str) -> Portrait:
        """Raises ProtocolError where there is none of that id."""
        if name == DEFAULT:
            return self._default
        if name not in self._kept:
            raise ProtocolError("no_portrait", "there is no such portrait (any more); upload it again", 404)
        self._kept.move_to_end(name)
        return self._kept[name]

    async def add(self, data: bytes, any_face: bool = False) -> tuple[str, Portrait]:
        """The id and the portrait of a picture file.

        Args:
            data: the file.
            any_face: take the largest face of several; else several are an error.

        Raises:
            ProtocolError: several faces, or too many uploads at once.
            ImageError, NoFaceError: as of `TalkingHead.register`.
        """
        if self._waiting >= MOST_WAITING_PORTRAITS:
            raise ProtocolError("busy", "other portraits are being looked at; try again in a few seconds", 503)
        self._waiting += 1
        try:
            async with self._finding:
                portrait = await asyncio.to_thread(self._register, data, any_face)
        finally:
            self._waiting -= 1
        name = secrets.token_urlsafe(12)
        self._kept[name] = portrait
        while len(self._kept) > MOST_PORTRAITS:
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
                    f"the picture shows {count} faces, one is wanted; cut it to one face, or take the largest",
                    409,
                )
        portrait = self._head.register(data, max_size=self._max_size)
        self._head.appearance(portrait)  # so that the first frame does not wait for it
        return portrait


def preview(portrait: Portrait) -> bytes:
    """The portrait's picture as JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(portrait.picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    assert done
    return data.tobytes()
