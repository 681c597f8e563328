"""Opens the lite bundle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ditto.bundle import Bundle, read_config
from ditto.errors import InputError
from ditto.lite.postprocess import PostprocessConfig
from ditto.lite.rendering.core import CoreRenderer
from ditto.lite.sampler import MotionNetwork, MotionSampler
from ditto.lite.speech_encoder import SpeechEncoder
from ditto.motion.emotion import EMOTIONS, add_emotion
from ditto.motion.motion import EXPRESSION, KEYPOINTS
from ditto.motion.space import LITE_SPACE
from ditto.performer import Performer
from ditto.row_performer import RowPerformer

Array = npt.NDArray[np.float32]
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
    renderer = CoreRenderer(bundle.path)
    return RowPerformer(
        SpeechEncoder(bundle.path), sampler, renderer, LITE_SPACE, show_emotion, renderer.prepare_alpha
    )


def show_emotion(row: npt.ArrayLike, emotion: npt.ArrayLike, talk: float = 0.0) -> Array:
    """The row (70,), in the camera frame, that shows an emotion (8,) on top; neutral gives the row itself.

    Args:
        talk: 0 for a silent face, 1 for one that talks, whose lips are free.
    """
    values, weights = np.asarray(row, np.float32), np.asarray(emotion, np.float32)
    if not np.delete(weights, EMOTIONS.index("neutral")).any():
        return values
    head = LITE_SPACE.to_head(values, None)
    head[EXPRESSION] = add_emotion(head[EXPRESSION].reshape(KEYPOINTS, 3), weights, talk).ravel()
    shown = LITE_SPACE.from_head(head, None).astype(np.float32)
    shown[: EXPRESSION.start] = values[: EXPRESSION.start]
    return shown


def postprocess_config(bundle: Bundle) -> PostprocessConfig:
    """The config of the part `postprocess`: numbers of the postprocessing that belong to the bundle's motion network.

    Raises:
        BundleError: the part is missing, or its config has unknown or missing keys, or values out of range.
    """
    where = f"{bundle.path / 'bundle.json'}, part 'postprocess', config"
    return read_config(PostprocessConfig, bundle.part("postprocess").config, where)
