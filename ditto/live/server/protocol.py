"""The messages between client and server, checked: JSON text both ways, sound in, frames out (docs/serve.md).

The WebSocket carries all of them; WebRTC carries the JSON in its data channel, and sound and pictures as tracks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

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
    UnsupportedError,
)
from ditto.live import Frame
from ditto.live.server.limits import MAX_TEXT_CHARACTERS
from ditto.motion.style import MAX_STRENGTH, STYLES

JsonObject = dict[str, object]

VERSION = 1
LOWEST_RATE, HIGHEST_RATE = 8000, 48000

HEADER = struct.Struct("<BBBBIIiId")
FRAME = 1
KINDS = ("idle", "speech", "transition")
NO_PICTURE, JPEG, H264, H264_KEY, MOTION = 0, 1, 2, 3, 4


class ProtocolError(DittoError):
    """A message that is invalid, or not allowed now.

    Attributes:
        code: for programs: "bad_message", "unknown_type", "not_now", ...
        status: the nearest HTTP status.
    """

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code = code
        self.status = status


class Message(BaseModel):
    """What a client sends. Descriptions of fields complete "expected NAME to be ..." where a value is refused."""

    # strict: "1" is no number and 1 is not true. JSON has no NaN, but Python clients write it.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _among(*choices: object) -> str:
    return f"one of {', '.join(map(str, choices))}"


Rate = Annotated[
    int,
    Field(
        ge=LOWEST_RATE,
        le=HIGHEST_RATE,
        description=f"a whole number of samples a second, {LOWEST_RATE} to {HIGHEST_RATE}",
    ),
]
Weights = Annotated[Mapping[str, float], Field(description="an object of finite weights by name")]
Truth = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a text")]
Style = Annotated[
    str | float, Field(description=f"one of {', '.join(STYLES)}, or a number from 0 to {MAX_STRENGTH:g}")
]
Video = Literal["jpeg", "h264", "motion", "none"]
Pace = Literal["playout", "fast"]
AudioRate = Literal[16000, 24000, 48000]
MicrophoneMode = Literal["off", "repeat", "listen"]


class Start(Message):
    """Opens a session: the first message of a WebSocket.

    Attributes:
        client: an id of the client's choice; one made by the server if empty. A second connection with the same id
            ends the first.
        portrait: "default", or an id given by the upload.
        rate: samples a second of the speech the client will send.
        audio_rate: samples a second of the sound that the server sends.
        video: "jpeg", "h264" (Annex B), "motion" for a client that draws the frames itself, or "none".
        quality: of JPEG, 1 to 95.
        pace: "playout" gives frames when they are due and leaves out pictures for a slow reader; "fast" as they are
            computed, and waits for the reader.
        latency, seed, emotion, still, style, idle: as of `TalkingHead.session`.
    """

    type: Literal["start"] = "start"
    client: str = Field("", pattern="^([A-Za-z0-9_-]{8,64})?$", description="8 to 64 letters, digits, _ or -")
    portrait: Text = "default"
    rate: Rate = 16000
    audio_rate: AudioRate = Field(24000, description=_among(*get_args(AudioRate)))
    video: Video = Field("jpeg", description=_among(*get_args(Video)))
    quality: int = Field(80, ge=1, le=95, description="a whole number, 1 to 95")
    pace: Pace = Field("playout", description=_among(*get_args(Pace)))
    latency: Text = "low"
    seed: int = Field(0, description="a whole number")
    emotion: Weights = Field(default_factory=dict)
    still: Truth = False
    style: Style = "natural"
    idle: Truth = True


class Offer(Start):
    """Opens a session over WebRTC: an SDP offer and the fields of `Start`.

    Attributes:
        sdp: of the offer.
        type: not read; a browser's session description has one.
    """

    type: Any = "offer"
    sdp: Text


class Speak(Message):
    """From now on, binary messages are speech of the portrait, at this rate. A connection begins so."""

    type: Literal["speak"] = "speak"
    rate: Rate = 16000


class Listen(Message):
    """From now on, binary messages are speech of the other party."""

    type: Literal["listen"] = "listen"
    rate: Rate = 16000


class Repeat(Message):
    """From now on, binary messages are an open microphone, whose utterances the portrait repeats."""

    type: Literal["repeat"] = "repeat"
    rate: Rate = 16000


class Flush(Message):
    """The utterance is complete."""

    type: Literal["flush"] = "flush"


class Interrupt(Message):
    """Drop the queue and the speech under way."""

    type: Literal["interrupt"] = "interrupt"


class Control(Message):
    """Changes of the face; what a client does not name stays (`model_fields_set` has what it named).

    Attributes:
        emotion: weights by name.
        gaze: (right, down) degrees.
        head: (pitch, yaw, roll) degrees.
        style: how much head and brows move: a name or a strength.
        names: numbers by their names in the catalog.
        timeline: as a timeline file has it; its second 0 is the first frame that changes.
        on_top: whether an earlier timeline goes on below this one.
        ramp_seconds: how long the change takes.
    """

    type: Literal["control"] = "control"
    emotion: Weights = Field(default_factory=dict)
    gaze: tuple[float, float] = Field((0.0, 0.0), description="a list of 2 finite numbers")
    head: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="a list of 3 finite numbers")
    style: Style = "natural"
    names: Mapping[str, float] = Field(default_factory=dict, description="an object of finite numbers by name")
    timeline: dict[str, Any] = Field(default_factory=dict, description="an object, as a timeline file has it")
    on_top: Truth = False
    ramp_seconds: float = Field(0.4, description="a finite number")


class Say(Message):
    """Text for espeak-ng; `voice` is one of its language codes."""

    type: Literal["say"] = "say"
    text: str = Field(
        pattern=r"\S",
        max_length=MAX_TEXT_CHARACTERS,
        description=f"a text of 1 to {MAX_TEXT_CHARACTERS} characters, not all of them spaces",
    )
    voice: Text = "en"


class Microphone(Message):
    """What the microphone track of a WebRTC connection is for: "off", "repeat" or "listen"."""

    type: Literal["microphone"] = "microphone"
    mode: MicrophoneMode = Field(description=_among(*get_args(MicrophoneMode)))


class Alive(Message):
    """Keeps a WebRTC connection open; sent every few seconds."""

    type: Literal["alive"] = "alive"


class Close(Message):
    """Ends the connection."""

    type: Literal["close"] = "close"


Command = Start | Speak | Listen | Repeat | Flush | Interrupt | Control | Say | Microphone | Alive | Close
COMMANDS: Mapping[str, type[Message]] = {kind.model_fields["type"].default: kind for kind in get_args(Command)}
_COMMAND: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


def parse(text: str | bytes) -> Command:
    """A message as a command.

    Raises:
        ProtocolError: no JSON object, an unknown type or name, a value of another kind or out of range.
    """
    try:
        return _COMMAND.validate_json(text)
    except ValidationError as error:
        raise _refusal(error, COMMANDS) from None


def parse_offer(text: bytes) -> Offer:
    """The body of a WebRTC offer. Raises ProtocolError as `parse` does."""
    try:
        return Offer.model_validate_json(text)
    except ValidationError as error:
        raise _refusal(error, {"": Offer}) from None


def _refusal(error: ValidationError, kinds: Mapping[str, type[Message]]) -> ProtocolError:
    """The first error that pydantic found, as an error of the protocol. `kinds`: the models by their type."""
    found = error.errors(include_url=False)[0]
    reason, place, came = found["type"], found["loc"], found["input"]
    if reason.startswith("union_tag"):
        tag = came.get("type", None)
        text = f"expected type to be {_among(*kinds)}, got {_short(tag)}; send one of these"
        return ProtocolError("unknown_type", text)
    if not place:
        what = f"no JSON ({found['ctx']['error']})" if reason == "json_invalid" else _short(came)
        return ProtocolError("bad_message", f"expected a message to be one JSON object, got {what}; send an object")
    kind, *rest = place if "" not in kinds else ("", *place)
    fields, name = kinds[str(kind)].model_fields, str(rest[0])
    if reason == "extra_forbidden":
        known = ", ".join(other for other in fields if other != "type") or "nothing beside type"
        return ProtocolError("unknown_name", f"expected {known}; got {name!r}; leave it out")
    if reason == "missing" and len(rest) == 1:
        text = f"expected a value for {name}: {fields[name].description}, got none; add it to the message"
        return ProtocolError("bad_message", text)
    if reason == "string_too_long":
        text = f"expected at most {found['ctx']['max_length']} characters in {name}, got {len(came)}; send less"
        return ProtocolError("too_long", text, 413)
    return bad_value(name, str(fields[name].description), came)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def bad_value(name: str, expected: str, came: object) -> ProtocolError:
    """The error for a value that a field does not take."""
    return ProtocolError("bad_message", f"expected {name} to be {expected}, got {_short(came)}; send another value")


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raises ProtocolError unless the value is one of the choices."""
    if value not in (given := tuple(choices)):
        raise bad_value(name, _among(*given), value)


def pack_frame(frame: Frame, picture: bytes, codec: int) -> bytes:
    """A frame as one binary message: 28 bytes of header, the sound as s16le, the picture.

    Header, little endian: type u8 = 1, kind u8 (0 idle, 1 speech, 2 transition), picture u8 (0 none, 1 JPEG, 2 H.264,
    3 H.264 that begins anew, 4 the motion in its place), 0 u8, index u32, epoch u32, speech index i32 (-1: none), bytes of
    sound u32, pts f64 (seconds).
    """
    sound: bytes = np.clip(np.rint(frame.audio * 32768.0), -32768, 32767).astype("<i2").tobytes()
    spoken = -1 if frame.speech_index is None else frame.speech_index
    kind = KINDS.index(frame.kind)
    header = HEADER.pack(FRAME, kind, codec, 0, frame.index, frame.epoch, spoken, len(sound), frame.pts_seconds)
    return header + sound + picture


CODES: tuple[tuple[type[Exception], str, int], ...] = (  # the first that fits
    (TooSlowError, "slow_machine", 503),
    (NoFaceError, "no_face", 422),
    (ImageError, "bad_picture", 422),
    (AudioError, "bad_sound", 422),
    (UnsupportedError, "bad_message", 400),
    (InputError, "bad_input", 422),
    (SessionError, "session", 409),
    (EngineError, "engine", 500),
    (DittoError, "ditto", 500),
    (ValueError, "bad_message", 400),
    (TypeError, "bad_message", 400),
)


def error_of(error: Exception) -> tuple[JsonObject, int]:
    """The message that clients get for an error, and its HTTP status. Unknown errors are not described to clients."""
    if isinstance(error, BusyError):
        return {
            "type": "error",
            "code": "busy",
            "text": "all sessions of this server are in use; try again later",
        }, 503
    if isinstance(error, ProtocolError):
        return {"type": "error", "code": error.code, "text": str(error)}, error.status
    for kind, code, status in CODES:
        if isinstance(error, kind):
            return {"type": "error", "code": code, "text": str(error)}, status
    return {"type": "error", "code": "internal", "text": "the server failed; see its log"}, 500
