"""Opens the lite bundle."""

from __future__ import annotations

from ditto.bundle import Bundle, read_config
from ditto.errors import InputError
from ditto.lite.postprocess import PostprocessConfig, change_emotion
from ditto.lite.rendering.mesh import MeshRenderer
from ditto.lite.sampler import MotionNetwork, MotionSampler
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.motion.space import LITE_SPACE
from ditto.performer import Performer
from ditto.row_performer import RowPerformer

PARTS = ("encoder", "motion", "postprocess", "renderer")


def open_performer(bundle: Bundle, device: str, precision: str) -> Performer:
    """The performer of a verified bundle.

    Raises:
        InputError: another device than the CPU, or another precision than float32.
        BundleError: a part is missing or damaged, or its config has unknown or missing keys.
        EngineError: a network cannot be run here.
    """
    if (device, precision) != ("cpu", "float32"):
        raise InputError(
            f"expected device='cpu' and precision='float32' for the bundle {bundle.name!r}, got device={device!r}, "
            f"precision={precision!r}; leave them out, or use the full bundle"
        )
    for part in PARTS:
        bundle.part(part)
    bundle.verify()
    sampler = MotionSampler(MotionNetwork.open(bundle.path, postprocess_config(bundle)))
    return RowPerformer(SpeechEncoder(bundle.path), sampler, MeshRenderer(bundle.path), LITE_SPACE, change_emotion)


def postprocess_config(bundle: Bundle) -> PostprocessConfig:
    """The config of the part `postprocess`: numbers of the postprocessing that belong to the bundle's motion network.

    Raises:
        BundleError: the part is missing, or its config has unknown or missing keys, or values out of range.
    """
    where = f"{bundle.path / 'bundle.json'}, part 'postprocess', config"
    return read_config(PostprocessConfig, bundle.part("postprocess").config, where)
