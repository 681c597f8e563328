"""The messages between client and server, checked: JSON text both ways, sound in, frames out (docs/serve.md).

The WebSocket carries all of them; WebRTC carries the JSON in its data channel, and sound and pictures as tracks.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ditto.errors import (
    AudioError,
    BusyError,
    DittoError,
    EngineError,
    ImageError,
    InputError,
    NoFaceError,
    SessionError,
    TooSlowError,
)
from ditto.live import Frame
from ditto.live.server.limits import LONGEST_TEXT

VERSION = 1
CLIENT = re.compile(r"[A-Za-z0-9_-]{8,64}")
PICTURES = ("jpeg", "h264", "none")
PACES = ("playout", "fast")
MICROPHONES = ("off", "repeat", "listen")
LOWEST_RATE, HIGHEST_RATE = 8000, 48000
RATES_OUT = (16000, 24000, 48000)

HEADER = struct.Struct("<BBBBIIiId")
FRAME = 1
KINDS = ("idle", "speech", "transition")
NO_PICTURE, JPEG, H264, H264_KEY = 0, 1, 2, 3


class ProtocolError(DittoError):
    """A message that is not understood, or not now.

    Attributes:
        code: what programs read: "bad_message", "unknown_type", "not_now", ...
        status: the nearest HTTP status.
    """

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


@dataclass(frozen=True)
class Start:
    """Opens a session; the first message of a WebSocket, and part of a WebRTC offer.

    Attributes:
        client: an id of the client's choice; one made by the server if empty. A second connection with the same id
            ends the first.
        portrait: "default", or an id given by the upload.
        rate: samples a second of the speech the client will send.
        audio_rate: samples a second of the sound it wants back.
        video: "jpeg", "h264" (Annex B) or "none".
        quality: of JPEG, 1 to 95.
        pace: "playout" gives frames when they are due and leaves out pictures for a slow reader; "fast" as they are
            computed, and waits for the reader.
        latency, seed, emotion, still, idle: as of `TalkingHead.session`.
    """

    client: str = ""
    portrait: str = "default"
    rate: int = 16000
    audio_rate: int = 24000
    video: str = "jpeg"
    quality: int = 80
    pace: str = "playout"
    latency: str = "low"
    seed: int = 0
    emotion: Mapping[str, float] = field(default_factory=dict)
    still: bool = False
    idle: bool = True

    def __post_init__(self) -> None:
        if self.client and not CLIENT.fullmatch(self.client):
            raise bad("client is 8 to 64 letters, digits, _ or -", self.client)
        check_rate(self.rate)
        choose("audio_rate", self.audio_rate, RATES_OUT)
        choose("video", self.video, PICTURES)
        choose("pace", self.pace, PACES)
        if not 1 <= self.quality <= 95:
            raise bad("quality lies in 1 to 95", self.quality)


@dataclass(frozen=True)
class Speak:
    """Binary messages from now on are speech of the portrait, at this rate; how a connection begins."""

    rate: int = 16000

    def __post_init__(self) -> None:
        check_rate(self.rate)


@dataclass(frozen=True)
class Listen:
    """Binary messages from now on are what the other party says."""

    rate: int = 16000

    def __post_init__(self) -> None:
        check_rate(self.rate)


@dataclass(frozen=True)
class Repeat:
    """Binary messages from now on are an open microphone; the portrait repeats what is said into it."""

    rate: int = 16000

    def __post_init__(self) -> None:
        check_rate(self.rate)


@dataclass(frozen=True)
class Flush:
    """The utterance is complete."""


@dataclass(frozen=True)
class Interrupt:
    """Everything that waits to be spoken is forgotten."""


@dataclass(frozen=True)
class Control:
    """Changes of the face; what is not named stays.

    Attributes:
        emotion: weights by name.
        gaze: (right, down) degrees.
        head: (pitch, yaw, roll) degrees.
        ramp_seconds: how long the change takes.
    """

    emotion: Mapping[str, float] | None = None
    gaze: tuple[float, float] | None = None
    head: tuple[float, float, float] | None = None
    ramp_seconds: float = 0.4


@dataclass(frozen=True)
class Say:
    """Text for espeak-ng; `voice` is one of its language codes."""

    text: str
    voice: str = "en"

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise bad("text to be spoken is wanted", "none")
        if len(self.text) > LONGEST_TEXT:
            raise ProtocolError(
                "too_long", f"at most {LONGEST_TEXT} characters are spoken at once, got {len(self.text)}; send less", 413
            )


@dataclass(frozen=True)
class Microphone:
    """What the microphone track of a WebRTC connection is for: "off", "repeat" or "listen"."""

    mode: str

    def __post_init__(self) -> None:
        choose("mode", self.mode, MICROPHONES)


@dataclass(frozen=True)
class Alive:
    """A sign of life; a WebRTC client gives one every few seconds."""


@dataclass(frozen=True)
class Close:
    """The client is done."""


Command = Start | Speak | Listen | Repeat | Flush | Interrupt | Control | Say | Microphone | Alive | Close
COMMANDS: Mapping[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (Start, Speak, Listen, Repeat, Flush, Interrupt, Control, Say, Microphone, Alive, Close)
}


def parse(text: str | bytes) -> Command:
    """A message as a command.

    Raises:
        ProtocolError: no JSON object, an unknown type or name, a value of another kind or out of range.
    """
    message = object_of(text)
    kind = message.pop("type", None)
    if not isinstance(kind, str) or kind not in COMMANDS:
        raise ProtocolError("unknown_type", f"type is one of {', '.join(COMMANDS)}, got {kind!r}")
    return command_of(COMMANDS[kind], message)


def object_of(text: str | bytes) -> dict[str, Any]:
    """A JSON object. Raises ProtocolError for anything else."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad_message", f"a message is one JSON object: {error}") from None
    if not isinstance(message, dict):
        raise bad("a message is one JSON object", type(message).__name__)
    return message


def command_of(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A command of that kind from names and values. Raises ProtocolError as `parse` does."""
    name = kind.__name__.lower()
    known = {item.name: item.type for item in fields(kind)}
    for key in values:
        if key not in known:
            wanted = ", ".join(known) or "nothing beside its type"
            raise ProtocolError("unknown_name", f"{name!r} takes {wanted}; got {key!r}")
    try:
        made = kind(**{key: CONVERSIONS[str(known[key])](key, value) for key, value in values.items()})
    except TypeError:
        raise ProtocolError("bad_message", f"{name!r} lacks a value; it takes {', '.join(known)}") from None
    return made


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad(f"{name} is a whole number", value)
    return value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.nan
    if not math.isfinite(number):
        raise bad(f"{name} is a number", value)
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad(f"{name} is a text", value)
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise bad(f"{name} is true or false", value)
    return value


def _weights(name: str, value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise bad(f"{name} is an object of weights by name", value)
    return {key: _number(f"{name}.{key}", weight) for key, weight in value.items()}


def _numbers(count: int) -> Callable[[str, Any], tuple[float, ...]]:
    def convert(name: str, value: Any) -> tuple[float, ...]:
        if not isinstance(value, list) or len(value) != count:
            raise bad(f"{name} is a list of {count} numbers", value)
        return tuple(_number(name, number) for number in value)

    return convert


CONVERSIONS: Mapping[str, Callable[[str, Any], Any]] = {
    "int": _whole,
    "float": _number,
    "str": _text,
    "bool": _truth,
    "Mapping[str, float]": _weights,
    "Mapping[str, float] | None": _weights,
    "tuple[float, float] | None": _numbers(2),
    "tuple[float, float, float] | None": _numbers(3),
}
"""By the annotation of a field: its value from JSON. (Annotations are texts here, by the import at the top.)"""


def bad(wanted: str, came: Any) -> ProtocolError:
    """The error for a value of another kind."""
    shown = repr(came)
    return ProtocolError("bad_message", f"{wanted}, got {shown if len(shown) <= 60 else shown[:57] + '...'}")


def choose(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raises ProtocolError unless the value is one of the choices."""
    if value not in choices:
        raise bad(f"{name} is one of {', '.join(map(str, choices))}", value)


def check_rate(rate: int) -> None:
    """Raises ProtocolError for a sample rate that is not taken."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise bad(f"rate lies in {LOWEST_RATE} to {HIGHEST_RATE} samples a second", rate)


def pack_frame(frame: Frame, picture: bytes, codec: int) -> bytes:
    """A frame as one binary message: 28 bytes of header, the sound as s16le, the picture.

    Header, little endian: type u8 = 1, kind u8 (0 idle, 1 speech, 2 transition), picture u8 (0 none, 1 JPEG, 2 H.264,
    3 H.264 that begins anew), 0 u8, index u32, epoch u32, speech index i32 (-1: none), bytes of sound u32, pts f64
    (seconds).
    """
    sound = np.clip(np.rint(frame.audio * 32768.0), -32768, 32767).astype("<i2").tobytes()
    spoken = -1 if frame.speech_index is None else frame.speech_index
    kind = KINDS.index(frame.kind)
    header = HEADER.pack(FRAME, kind, codec, 0, frame.index, frame.epoch, spoken, len(sound), frame.pts_seconds)
    return header + sound + picture


CODES: tuple[tuple[type[Exception], str, int], ...] = (  # the first that fits
    (TooSlowError, "slow_machine", 503),
    (NoFaceError, "no_face", 422),
    (ImageError, "bad_picture", 422),
    (AudioError, "bad_sound", 422),
    (InputError, "bad_input", 422),
    (SessionError, "session", 409),
    (EngineError, "engine", 500),
    (DittoError, "ditto", 500),
    (ValueError, "bad_message", 400),
    (TypeError, "bad_message", 400),
)


def error_of(error: Exception) -> tuple[dict[str, Any], int]:
    """An error as the message clients get, and its HTTP status. What is not known is not described to strangers."""
    if isinstance(error, BusyError):
        return {"type": "error", "code": "busy", "text": "all places at this server are taken; try again in a while"}, 503
    if isinstance(error, ProtocolError):
        return {"type": "error", "code": error.code, "text": str(error)}, error.status
    for kind, code, status in CODES:
        if isinstance(error, kind):
            return {"type": "error", "code": code, "text": str(error)}, status
    return {"type": "error", "code": "internal", "text": "the server failed; its log says where"}, 500
