"""The steps `motion`, `emotion`, `features` and `export`: the arrays of a clip."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from ditto.bundle import Bundle
from ditto.errors import InputError
from ditto.lite.speech_encoder import FRAMES_PER_HOP, HOP_SAMPLES, SpeechEncoder
from ditto.media.footage import pictures
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS, emotion_vector
from ditto.portrait.emotion_reader import read_emotion
from ditto.training.dataset import SPLITS, Clip, ClipInfo, write_arrays, write_clip
from ditto.training.motion_data import fill_gaps, real_clip
from ditto.training.prepare.faces import landmarks_of
from ditto.training.prepare.video import sound_of
from ditto.training.prepare.work import Dropped, Outcome, Piece, Work

Array = npt.NDArray[np.float32]
Samples = npt.NDArray[np.int16]

EMOTION_EVERY = FPS  # frames between two pictures that are judged


@functools.cache
def encoder_of(bundle: str) -> SpeechEncoder:
    """The speech encoder of a bundle, the one that streams use.

    Raises:
        InputError: a bundle of another kind.
    """
    opened = Bundle.open(bundle)
    if "encoder" not in opened.parts or opened.part("encoder").model != "speech_encoder":
        raise InputError(
            f"expected a bundle with a speech_encoder, got {opened.name!r} with {', '.join(opened.parts)}; use lite, or a "
            "bundle made from it"
        )
    return SpeechEncoder(opened.path)


def features_of(encoder: SpeechEncoder, sound: Samples) -> Array:
    """(640 T,) int16 -> (T, 368) features, as a stream that begins with this sound gives them, bit for bit."""
    frames = len(sound) // SAMPLES_PER_FRAME
    hops = -(-frames // FRAMES_PER_HOP)
    samples = np.zeros((hops + 1, HOP_SAMPLES), np.float32)  # one hop of zeros more gives the last features
    samples.reshape(-1)[: len(sound)] = sound.astype(np.float32) / 32768
    state = encoder.initial_state()
    rows = []
    for hop in samples:
        found, state = encoder(hop[None], state)
        rows.append(found[0])
    return np.concatenate(rows[1:])[:frames]


def sound_of_clip(work: Work, clip: Piece) -> Samples:
    """(640 T,) the sound of a clip, moved by its offset."""
    return sound_of(work, clip.media, clip.start + clip.sync_offset, clip.end + clip.sync_offset)


def measure_motion(work: Work, clip: Piece) -> Outcome:
    """The step `motion`: `ID.npz` with motion, eyes and canonical keypoints."""
    try:
        real = real_clip(fill_gaps(landmarks_of(work, clip)))
    except ValueError as error:
        return Outcome((), (Dropped(clip.id, "no motion", str(error), clip.frames / FPS),))
    write_arrays(work.file("motion", f"{clip.id}.npz"), real._asdict())
    return Outcome((clip,))


def judge_emotion(work: Work, clip: Piece) -> Outcome:
    """The step `emotion`: `ID.npz` with weights (8,), of a picture a second, or neutral."""
    weights = emotion_vector(None)
    by = work.options.emotion
    if by != "neutral":
        landmarks = landmarks_of(work, clip)
        seen = [i for i in range(0, len(landmarks), EMOTION_EVERY) if np.isfinite(landmarks[i]).all()]
        frames = {}
        if by == "hsemotion":
            frames = {i: picture for i, picture in enumerate(pictures(clip.path, clip.start, clip.end)) if i in seen}
            seen = [i for i in seen if i in frames]
        if seen:
            reading = read_emotion([frames[i] for i in seen if i in frames], landmarks[seen], by)
            weights = np.array([reading.weights[name] for name in EMOTIONS], np.float32)
    write_arrays(work.file("emotion", f"{clip.id}.npz"), {"emotion": weights})
    return Outcome((clip,))


def hear_features(work: Work, clip: Piece) -> Outcome:
    """The step `features`: `ID.npz` with features (T, 368) float16."""
    features = features_of(encoder_of(work.options.bundle), sound_of_clip(work, clip))
    write_arrays(work.file("features", f"{clip.id}.npz"), {"features": features.astype(np.float16)})
    return Outcome((clip,))


def info_of(clip: Piece, emotion_source: str, split: str) -> ClipInfo:
    """The line of `clips.jsonl`."""
    return ClipInfo(
        id=clip.id,
        video=clip.video,
        start_seconds=clip.start / FPS,
        end_seconds=clip.end / FPS,
        track=clip.track,
        person=clip.person,
        language=clip.language,
        frames=clip.frames,
        sync_offset_frames=clip.sync_offset,
        sync_confidence=clip.sync_confidence,
        emotion_source=emotion_source,
        split=split,
    )


def export_clip(work: Work, clip: Piece) -> Outcome:
    """The step `export`: the clip's file of the dataset; its split is decided when all clips are known."""
    arrays: dict[str, Any] = {"sound": sound_of_clip(work, clip)}
    for step in ("motion", "emotion", "features"):
        with np.load(work.file(step, f"{clip.id}.npz"), allow_pickle=False) as found:
            arrays |= {name: found[name] for name in found.files}
    write_clip(work.steps.parent, info_of(clip, work.options.emotion, SPLITS[0]), Clip(**arrays))
    return Outcome((clip,))
