"""ditto: one portrait and live speech become a talking head, in real time, under full control.

    import ditto

    head = ditto.load("lite")
    portrait = head.register("portrait.jpg")
    for frame in head.animate(portrait, "speech.wav"):
        show(frame.image, frame.pts_seconds)

The names below are imported on first use, so `import ditto` loads neither torch nor ONNX Runtime. It turns their
telemetry off (`ditto.privacy`): import it before them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ditto.privacy import turn_off_telemetry

if TYPE_CHECKING:
    from ditto.controls import Controls as Controls
    from ditto.controls.driving import Performance as Performance
    from ditto.controls.timeline import Timeline as Timeline
    from ditto.errors import AudioError as AudioError
    from ditto.errors import BundleError as BundleError
    from ditto.errors import BusyError as BusyError
    from ditto.errors import DittoError as DittoError
    from ditto.errors import EngineError as EngineError
    from ditto.errors import ImageError as ImageError
    from ditto.errors import InputError as InputError
    from ditto.errors import NoFaceError as NoFaceError
    from ditto.errors import OutputError as OutputError
    from ditto.errors import ProvenanceError as ProvenanceError
    from ditto.errors import SessionError as SessionError
    from ditto.errors import TakeError as TakeError
    from ditto.errors import TimelineError as TimelineError
    from ditto.errors import TooSlowError as TooSlowError
    from ditto.frame import Frame as Frame
    from ditto.frame import SegmentEnd as SegmentEnd
    from ditto.media.video import VideoWriter as VideoWriter
    from ditto.motion.emotion import EMOTIONS as EMOTIONS
    from ditto.motion.motion import Motion as Motion
    from ditto.portrait.portrait import Portrait as Portrait
    from ditto.provenance.label import Label as Label
    from ditto.provenance.marking import Provenance as Provenance
    from ditto.scene import Speaker as Speaker
    from ditto.stream import Stream as Stream
    from ditto.take import Take as Take
    from ditto.talking_head import TalkingHead as TalkingHead
    from ditto.talking_head import load as load

turn_off_telemetry()

__version__ = "0.1.0"

_MODULES = {
    "AudioError": "ditto.errors",
    "BundleError": "ditto.errors",
    "BusyError": "ditto.errors",
    "Controls": "ditto.controls",
    "DittoError": "ditto.errors",
    "EMOTIONS": "ditto.motion.emotion",
    "EngineError": "ditto.errors",
    "Frame": "ditto.frame",
    "ImageError": "ditto.errors",
    "InputError": "ditto.errors",
    "Label": "ditto.provenance.label",
    "Motion": "ditto.motion.motion",
    "NoFaceError": "ditto.errors",
    "OutputError": "ditto.errors",
    "Performance": "ditto.controls.driving",
    "Portrait": "ditto.portrait.portrait",
    "Provenance": "ditto.provenance.marking",
    "ProvenanceError": "ditto.errors",
    "SegmentEnd": "ditto.frame",
    "SessionError": "ditto.errors",
    "Speaker": "ditto.scene",
    "Stream": "ditto.stream",
    "Take": "ditto.take",
    "TakeError": "ditto.errors",
    "TalkingHead": "ditto.talking_head",
    "Timeline": "ditto.controls.timeline",
    "TimelineError": "ditto.errors",
    "TooSlowError": "ditto.errors",
    "VideoWriter": "ditto.media.video",
    "load": "ditto.talking_head",
}
__all__ = [
    "EMOTIONS",
    "AudioError",
    "BundleError",
    "BusyError",
    "Controls",
    "DittoError",
    "EngineError",
    "Frame",
    "ImageError",
    "InputError",
    "Label",
    "Motion",
    "NoFaceError",
    "OutputError",
    "Performance",
    "Portrait",
    "Provenance",
    "ProvenanceError",
    "SegmentEnd",
    "SessionError",
    "Speaker",
    "Stream",
    "Take",
    "TakeError",
    "TalkingHead",
    "Timeline",
    "TimelineError",
    "TooSlowError",
    "VideoWriter",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'ditto' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
