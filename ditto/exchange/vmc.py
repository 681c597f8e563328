"""VMC over OSC: packets of the Virtual Motion Capture protocol 3.1, to and from avatar programs. Needs `[exchange]`.

Weights go by ARKit's names ("perfect sync"), in lower camel case; names are case-sensitive there. The bone `Head` has the
rotation of the head as a quaternion in Unity's axes: x to the person's right, y up, z forward.

Source: protocol.vmc.info, version 3.1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls.blendshapes import ARKIT_NAMES, SHAPES
from ditto.errors import ExchangeError
from ditto.exchange.track import Floats, shape_of
from ditto.motion.motion import euler_degrees, rotation_matrix

PERFORMER_PORT, ASSISTANT_PORT = 39539, 39540  # to the avatar program; to the performer
VALUE, APPLY, BONE, TIME, STATE = (
    "/VMC/Ext/Blend/Val", "/VMC/Ext/Blend/Apply", "/VMC/Ext/Bone/Pos", "/VMC/Ext/T", "/VMC/Ext/OK",
)  # fmt: skip
MOST_BYTES = 1400  # of a packet: under what a network card takes in one piece
MOST_VALUES = 1 << 12  # weights in one packet


class VmcFrame(NamedTuple):
    """What a packet says.

    Attributes:
        weights: by the place in `ARKIT_NAMES`; those that the packet has.
        head_degrees: (3,) pitch, yaw, roll as of `BlendshapeTrack`; None: not in the packet.
        seconds: of the sender's clock; None: not in the packet.
        applied: whether the packet ends a frame.
    """

    weights: dict[int, float]
    head_degrees: Floats | None
    seconds: float | None
    applied: bool


def packets(weights: npt.ArrayLike, head_degrees: npt.ArrayLike | None = None, seconds: float = 0.0) -> list[bytes]:
    """The packets of one frame, in order: weights (52,) in the order of `ARKIT_NAMES`, pitch, yaw and roll, and a time.

    Raises:
        ExchangeError: python-osc is not installed.
        ValueError: another number of weights, or a number that is not finite.
    """
    values = np.asarray(weights, np.float64)
    if values.shape != (SHAPES,) or not np.isfinite(values).all() or not math.isfinite(seconds):
        raise ValueError(
            f"expected {SHAPES} finite weights and a finite time, got shape {values.shape} and {seconds!r}; "
            "give one weight for each blendshape"
        )
    builder = _osc("osc_message_builder")
    messages = [_message(builder, STATE, 1), _message(builder, TIME, float(seconds))]
    if head_degrees is not None:
        messages.append(_message(builder, BONE, "Head", 0.0, 0.0, 0.0, *quaternion_of(head_degrees)))
    messages += [_message(builder, VALUE, name, float(x)) for name, x in zip(ARKIT_NAMES, values, strict=True)]
    messages.append(_message(builder, APPLY))
    bundles, size = [[]], 16  # type: list[list[Any]], int
    for message in messages:
        if size + 4 + message.size > MOST_BYTES:
            bundles.append([])
            size = 16
        bundles[-1].append(message)
        size += 4 + message.size
    return [_bundle(bundle) for bundle in bundles]


def _message(builder: Any, address: str, *values: str | int | float) -> Any:
    message = builder.OscMessageBuilder(address)
    for value in values:
        message.add_arg(value, "f" if isinstance(value, float) else None)
    return message.build()


def _bundle(messages: list[Any]) -> bytes:
    module = _osc("osc_bundle_builder")
    builder = module.OscBundleBuilder(module.IMMEDIATELY)
    for message in messages:
        builder.add_content(message)
    return bytes(builder.build().dgram)


def read(data: bytes) -> VmcFrame:
    """What a packet says, a bundle or one message; addresses that are none of these are left out.

    Raises:
        ExchangeError: python-osc is not installed, the bytes are no OSC, or an argument has another type or is not finite.
    """
    weights: dict[int, float] = {}
    head: Floats | None = None
    seconds: float | None = None
    applied = False
    for address, values in _messages(data):
        if address == VALUE:
            if len(values) < 2 or not isinstance(values[0], str):
                raise ExchangeError(
                    f"VMC packet, {VALUE}: expected a name and a number, got {len(values)} arguments; "
                    "check the program that sends it"
                )
            place = shape_of(values[0])
            if place is not None:
                weights[place] = _finite(address, values[1])
        elif address == BONE and values[:1] == ["Head"]:
            if len(values) < 8:
                raise ExchangeError(
                    f"VMC packet, {BONE}: expected a name and 7 numbers, got {len(values)} arguments; "
                    "check the program that sends it"
                )
            head = degrees_of_quaternion([_finite(address, value) for value in values[4:8]])
        elif address == TIME and values:
            seconds = _finite(address, values[0])
        elif address == APPLY:
            applied = True
    return VmcFrame(weights, head, seconds, applied)


def _messages(data: bytes) -> list[tuple[str, list[Any]]]:
    module = _osc("osc_packet")
    try:
        found = [(timed.message.address, list(timed.message.params)) for timed in module.OscPacket(data).messages]
    except Exception as error:  # python-osc lets errors of struct, of text and of indices through
        kind = type(error).__name__
        raise ExchangeError(f"VMC packet: expected OSC, got {len(data)} other bytes ({kind}); another program?") from None
    if len(found) > MOST_VALUES:
        raise ExchangeError(f"VMC packet: expected at most {MOST_VALUES} messages, got {len(found)}; another program?")
    return found


def _finite(address: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ExchangeError(
            f"VMC packet, {address}: expected a finite number, got {str(value)[:40]!r}; "
            "check the program that sends it"
        )
    return float(value)


def quaternion_of(head_degrees: npt.ArrayLike) -> list[float]:
    """x, y, z, w of pitch, yaw, roll (3,). Unity's axes are ditto's with every sign changed, so the matrix is the same."""
    m = rotation_matrix(*np.asarray(head_degrees, np.float64)).T
    w = math.sqrt(max(0.0, 1.0 + m[0, 0] + m[1, 1] + m[2, 2])) / 2.0
    if w > 1e-6:
        x, y, z = (m[2, 1] - m[1, 2]) / (4 * w), (m[0, 2] - m[2, 0]) / (4 * w), (m[1, 0] - m[0, 1]) / (4 * w)
        return [float(x), float(y), float(z), w]
    axis = int(np.argmax(np.diag(m)))  # turned by 180 degrees
    vector = m[axis] + np.eye(3)[axis]
    return [*(vector / np.linalg.norm(vector)).tolist(), 0.0]


def degrees_of_quaternion(quaternion: npt.ArrayLike) -> Floats:
    """(3,) pitch, yaw, roll of x, y, z, w; of zeros no turn."""
    q = np.asarray(quaternion, np.float64)
    length = float(np.linalg.norm(q))
    x, y, z, w = q / length if length > 1e-9 else (0.0, 0.0, 0.0, 1.0)
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    return euler_degrees(matrix.T)


def _osc(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"pythonosc.{module}")
    except ImportError:
        raise ExchangeError("VMC needs python-osc; pip install 'ditto-talking-head[exchange]'") from None
