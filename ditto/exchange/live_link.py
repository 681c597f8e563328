"""Live Link over UDP: packets of the Live Link Face app, which Unreal Engine reads.

Source of the packet: JimWest/PyLiveLinkFace at 18c0e8b.
"""

from __future__ import annotations

import logging
import math
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES, WeightFit
from ditto.errors import ExchangeError, SessionError
from ditto.exchange.live_link_csv import SHAPE_COUNT, degrees_of, rotations_of
from ditto.exchange.track import Floats, look_degrees
from ditto.motion.motion import DEGREES, FPS, Motion

if TYPE_CHECKING:
    from ditto.motion.space import MotionSpace
    from ditto.portrait.portrait import Portrait

logger = logging.getLogger(__name__)

PORT = 11111
VERSION = 6
LONGEST_NAME = 256  # bytes of a device's or a subject's name
LONGEST_PACKET = 1 + 2 * (4 + LONGEST_NAME) + 16 + 1 + 4 * SHAPE_COUNT
MOST_WEIGHT = 10.0  # weights are 0 to about 1, rotations up to pi; more is another format
TIMECODE_FPS = 60
FOLLOW_SECONDS = 0.08  # two frames to a packet's face: a phone's rate is not ours; by eye
MOST_TURN = 25.0  # degrees of a phone's head; one picture shows no more


class Controlled(Protocol):
    """A session, as far as it is driven."""

    def control(self, *, names: Mapping[str, float] | None = None, ramp_seconds: float = ...) -> None: ...


@dataclass(frozen=True, eq=False)
class Packet:
    """One frame.

    Attributes:
        subject: its name in Unreal.
        weights: (52,) in the order of `ARKIT_NAMES`; None: the device sees no face.
        head_degrees: (3,) as of `BlendshapeTrack`; None: off.
        eyes_degrees: (2, 2) as of `BlendshapeTrack`; None: off.
        frame: number and part of a frame, counted at `fps`.
        fps: of that count.
        device: its id.
    """

    subject: str
    weights: Floats | None
    head_degrees: Floats | None = None
    eyes_degrees: Floats | None = None
    frame: float = 0.0
    fps: float = float(TIMECODE_FPS)
    device: str = ""


def pack(packet: Packet) -> bytes:
    """The bytes of a packet; a rate with a part of a frame is written in thousandths.

    Raises:
        ValueError: names longer than `LONGEST_NAME` bytes.
    """
    names = b""
    for name in (packet.device, packet.subject):
        raw = name.encode()
        if len(raw) > LONGEST_NAME:
            raise ValueError(f"expected names of at most {LONGEST_NAME} bytes, got {len(raw)}; shorten it")
        names += struct.pack(">i", len(raw)) + raw
    number = math.floor(packet.frame)
    rate = (round(packet.fps), 1) if float(packet.fps).is_integer() else (round(packet.fps * 1000), 1000)
    head = struct.pack(">B", VERSION) + names + struct.pack(">ifii", number, packet.frame - number, *rate)
    if packet.weights is None:
        return head + b"\x00"
    eyes = look_degrees(packet.weights[None])[0] if packet.eyes_degrees is None else packet.eyes_degrees
    turns = rotations_of(None if packet.head_degrees is None else packet.head_degrees[None], eyes[None])[0]
    values = np.concatenate([packet.weights, turns]).astype(">f4")
    return head + struct.pack(">B", SHAPE_COUNT) + values.tobytes()


def unpack(data: bytes) -> Packet:
    """The packet in bytes.

    Raises:
        ExchangeError: another version, a part of a packet or more than one, names that are no text, values that are not finite
            or out of range; the message names the field.
    """
    at = 0

    def take(size: int, what: str) -> bytes:
        nonlocal at
        if len(data) - at < size:
            raise ExchangeError(
                f"Live Link packet, {what}: expected {size} bytes, got {len(data) - at}; the packet was cut, or is another's"
            )
        at += size
        return data[at - size : at]

    version = take(1, "version")[0]
    if version != VERSION:
        raise ExchangeError(f"Live Link packet, version: expected {VERSION}, got {version}; is it another program's?")
    names = []
    for what in ("device id", "subject name"):
        size = struct.unpack(">i", take(4, f"length of the {what}"))[0]
        if not 0 <= size <= LONGEST_NAME:
            raise ExchangeError(f"Live Link packet, {what}: expected at most {LONGEST_NAME} bytes, got {size}; another's?")
        try:
            names.append(take(size, what).decode())
        except UnicodeDecodeError:
            raise ExchangeError(f"Live Link packet, {what}: expected UTF-8, got other bytes; another program?") from None
    number, part, above, below = struct.unpack(">ifii", take(16, "frame and rate"))
    if not (math.isfinite(part) and above > 0 and below > 0):
        raise ExchangeError(
            f"Live Link packet, frame and rate: expected a rate above 0, got {above}/{below} and {part}; "
            "check the program that sends it"
        )
    count = take(1, "count")[0]
    if count not in (0, SHAPE_COUNT):
        raise ExchangeError(f"Live Link packet, count: expected {SHAPE_COUNT} values, got {count}; set the app to ARKit mode")
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused below
        values = np.frombuffer(take(4 * count, "values"), ">f4").astype(np.float64)
    if at != len(data):
        raise ExchangeError(f"Live Link packet: expected {at} bytes, got {len(data)}; another program?")
    if not (np.abs(values) <= MOST_WEIGHT).all():  # False for NaN
        place = int(np.flatnonzero(~(np.abs(values) <= MOST_WEIGHT))[0])
        raise ExchangeError(
            f"Live Link packet, value {place}: expected up to {MOST_WEIGHT:g}, got {values[place]}; "
            "check the program that sends it"
        )
    common = (float(number) + part, above / below, names[0])
    if count == 0:
        return Packet(names[1], None, None, None, *common)
    head, eyes = degrees_of(values[None, SHAPES:])
    return Packet(
        names[1], values[:SHAPES], None if head is None else head[0], None if eyes is None else eyes[0], *common
    )


class LiveLinkSender:
    """Sends a face to a program that reads Live Link: `sender.send(frame.motion)` for each frame.

    It starts no thread and holds one socket; `close` it, or use it as a context manager. One thread at a time may use it.

    Args:
        host, port: of the other program.
        subject: the name that Unreal shows.
        space: what the motions mean; None: those of the lite bundle. `head.performer.motion_space` has it.
        portrait: that the motions are drawn on; spaces but lite need it.
        clock: seconds, for tests.

    Raises:
        ExchangeError: the host is not known.
    """

    def __init__(
        self,
        host: str,
        port: int = PORT,
        *,
        subject: str = "ditto",
        space: MotionSpace | None = None,
        portrait: Portrait | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from ditto.motion.space import LITE_SPACE

        self._space, self._portrait, self._subject, self._clock = space or LITE_SPACE, portrait, subject, clock
        self._fit = WeightFit(self._space)
        self._device = str(uuid.uuid4()).upper()
        self._last = -math.inf
        self._socket, self._address = _udp(host, port)
        self._socket.setblocking(False)

    def send(self, motion: Motion | npt.ArrayLike) -> bool:
        """Send a frame's motion (70,), as `frame.motion`.

        A frame that comes less than half a frame after the one before is left out: frames that are drawn faster than they are
        shown would flood the network. So is one that the network does not take.

        Returns:
            Whether it was sent.

        Raises:
            ValueError: another shape, numbers that are not finite, or after `close`.
        """
        if self._socket.fileno() < 0:
            raise ValueError("expected a sender that is open, got one that was closed; make another")
        now = self._clock()
        if now - self._last < 0.5 / FPS:
            return False
        values = self._space.to_head(np.asarray(motion, np.float64), self._portrait)
        weights = self._fit.next(values)
        today = time.time() - time.timezone
        frame = today % 86400.0 * TIMECODE_FPS
        packet = Packet(self._subject, weights, values[DEGREES], None, frame, float(TIMECODE_FPS), self._device)
        self._last = now
        try:
            self._socket.sendto(pack(packet), self._address)
        except OSError:  # nobody listens there now, or the network's queue is full
            return False
        return True

    def close(self) -> None:
        """Close the socket; again does nothing."""
        self._socket.close()

    def __enter__(self) -> LiveLinkSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LiveLinkReceiver:
    """Receives a phone that runs Live Link Face, in a thread that keeps the latest packet.

    `close` it, or use it as a context manager. Packets that cannot be read are counted and dropped; the log names the first.

    Args:
        host: address to listen at: "127.0.0.1" for programs of this machine, that of a network card for a phone, "0.0.0.0" for
            all.
        port: 0 takes a free one.
        subject: take packets of this subject only.

    Attributes:
        port: that it listens at.
        received, dropped: how many packets there were, those dropped not counted, and how many were dropped.

    Raises:
        ExchangeError: the address cannot be listened at.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = PORT, subject: str | None = None) -> None:
        self._socket, address = _udp(host, port)
        try:
            self._socket.bind(address)
        except OSError as error:
            self._socket.close()
            raise ExchangeError(
                f"expected an address to listen at, got {host}:{port}: {error.strerror or error}; give another"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(0.2)  # how long `close` may take
        self._subject = subject
        self.received = self.dropped = 0
        self._latest: Packet | None = None
        self._news = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ditto-live-link", daemon=True)
        self._thread.start()

    @property
    def latest(self) -> Packet | None:
        """The last packet; None before the first."""
        return self._latest

    def wait(self, timeout_seconds: float | None = None) -> Packet | None:
        """The next packet that comes; None if none comes in time, or `close` is called."""
        with self._news:
            before = self.received
            self._news.wait_for(lambda: self._closed or self.received != before, timeout_seconds)
            return self._latest if self.received != before else None

    def close(self) -> None:
        """Stop listening; returns when the thread has ended. Again does nothing."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> LiveLinkReceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        with self._socket:
            while not self._closed:
                try:
                    data = self._socket.recv(LONGEST_PACKET + 1)
                except TimeoutError:
                    continue
                except OSError:  # an answer of the network to nothing that we sent
                    continue
                try:
                    packet = unpack(data)
                except ExchangeError as error:
                    if not self.dropped:
                        logger.warning("%s; packets like it are dropped", error)
                    self.dropped += 1
                    continue
                if self._subject is not None and packet.subject != self._subject:
                    continue
                with self._news:
                    self._latest = packet
                    self.received += 1
                    self._news.notify_all()


class Follower:
    """Drives a live session with a phone: every new packet goes to `session.control`, from a thread of its own.

    The face of the phone comes on top of what the session does: its shapes are added to the face's own
    motion, its head turns from the pose of the first packet. `close` it, or use it as a context manager; then the shapes go
    back to neutral.

    Args:
        session: of `TalkingHead.session` or `blocking_session`, open.
        receiver: that listens; it is not closed.
        shapes: names of the shapes that are taken over.
        head: whether the head is.

    Raises:
        ValueError: an unknown shape.
    """

    def __init__(
        self, session: Controlled, receiver: LiveLinkReceiver, shapes: Sequence[str] = ARKIT_NAMES, head: bool = True
    ) -> None:
        unknown = [name for name in shapes if name not in ARKIT_NAMES]
        if unknown:
            raise ValueError(f"expected shapes of ARKit, got {', '.join(unknown)}; names are in ARKIT_NAMES")
        self._session, self._receiver, self._head = session, receiver, head
        self._places = [ARKIT_NAMES.index(name) for name in shapes]
        self._rest: Floats | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ditto-live-link-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following, the shapes go back to neutral; returns when the thread has ended. Again does nothing."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        used: dict[str, float] = {}
        try:
            while not self._closed.is_set():
                packet = self._receiver.wait(0.2)
                if packet is None or packet.weights is None:
                    continue
                used = self._names(packet)
                self._session.control(names=used, ramp_seconds=FOLLOW_SECONDS)
            self._session.control(names=dict.fromkeys(used, 0.0))
        except SessionError:  # the session was closed first
            pass

    def _names(self, packet: Packet) -> dict[str, float]:
        assert packet.weights is not None
        names = {ARKIT_NAMES[i]: min(max(float(packet.weights[i]), 0.0), 1.0) for i in self._places}
        if self._head and packet.head_degrees is not None:
            if self._rest is None:
                self._rest = packet.head_degrees
            turn = np.clip(packet.head_degrees - self._rest, -MOST_TURN, MOST_TURN)
            names |= dict(zip(("head.pitch", "head.yaw", "head.roll"), turn.tolist(), strict=True))
        return names


def _udp(host: str, port: int) -> tuple[socket.socket, tuple[object, ...]]:
    """A UDP socket of the right family, and the address. Raises ExchangeError."""
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise ExchangeError(f"expected a port in [0, 65535], got {port!r}; give another")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        return socket.socket(family, kind), address
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExchangeError(f"expected the name or address of a machine, got {host!r}: {reason}; check it") from None
