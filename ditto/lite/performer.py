"""Opens the lite bundle."""

from __future__ import annotations

from ditto.bundle import Bundle
from ditto.errors import InputError
from ditto.lite.postprocess import change_emotion
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.sampler import MotionNetwork, MotionSampler
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.motion.space import LITE_SPACE
from ditto.performer import Performer
from ditto.row_performer import RowPerformer

PARTS = ("encoder", "motion", "renderer")


def open_performer(bundle: Bundle, device: str, precision: str) -> Performer:
    """The performer of a verified bundle.

    Raises:
        InputError: another device than the CPU, or another precision than float32.
        BundleError: a part is missing or damaged.
        EngineError: a network cannot be run here.
    """
    if (device, precision) != ("cpu", "float32"):
        raise InputError(
            f"the bundle {bundle.name!r} runs on the CPU in float32, got device={device!r}, precision={precision!r}; leave "
            "them out, or take the full bundle"
        )
    for part in PARTS:
        bundle.part(part)
    bundle.verify()
    sampler = MotionSampler(MotionNetwork.open(bundle.path))
    return RowPerformer(SpeechEncoder(bundle.path), sampler, MeshRenderer(bundle.path), LITE_SPACE, change_emotion)
