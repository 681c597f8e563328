"""The step `filters`: which faces are good enough to learn from, and whether somebody speaks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.media.voice import WINDOW_SAMPLES, VoiceDetector
from ditto.motion.motion import euler_degrees
from ditto.portrait.face_mesh import fit_head
from ditto.training.prepare.video import sound_of
from ditto.training.prepare.work import Dropped, Outcome, Piece, Work

Floats = npt.NDArray[np.float64]

BAD_FRAMES = 0.1  # part of the frames that may be cut off, or turned away
OTHER_FACE = 1 / 3  # of a face's height: a smaller one beside it is a picture on the wall, or the audience
OTHER_FRAMES = 0.1  # part of the frames in which another face may be beside it
VOICE_WARM_UP = FPS  # frames of sound before the clip, which the voice detector hears first
MISSING_FRAMES = 0.1  # part of the frames in which the face may be lost


class Tracked(NamedTuple):
    """What the step `faces` wrote of one face: landmarks (T, 478, 3), sharpness, and its frames [start, end)."""

    landmarks: Floats
    sharpness: float
    start: int
    end: int


def height_of(landmarks: Floats) -> float:
    """Median height of a face (T, 478, 3) in pixels."""
    y = landmarks[..., 1]
    return float(np.nanmedian(y.max(-1) - y.min(-1)))


def cut_off(landmarks: Floats, size: tuple[int, int]) -> float:
    """Part of the frames in which landmarks (T, 478, 3) lie outside of a picture of size (W, H)."""
    flat = landmarks[..., :2]
    return float(((flat < 0) | (flat > np.array(size))).any((1, 2)).mean())


def turned(landmarks: Floats, degrees: float) -> float:
    """Part of the frames in which pitch or yaw of a head (T, 478, 3) is over so many degrees."""
    seen = landmarks[np.isfinite(landmarks).all((1, 2))]
    angles = euler_degrees(np.stack([fit_head(frame)[1] for frame in seen]))
    return float((np.abs(angles[:, :2]) > degrees).any(1).mean())


def voiced(work: Work, clip: Piece) -> float:
    """Part of a clip's time with voice."""
    before = min(clip.start, VOICE_WARM_UP)
    sound = sound_of(work, clip.media, clip.start - before, clip.end).astype(np.float32) / np.float32(32768)
    found = VoiceDetector().push(sound)
    return float(np.mean(found[before * SAMPLES_PER_FRAME // WINDOW_SAMPLES :]))


def others_beside(clip: Piece, tracks: dict[int, Tracked]) -> float:
    """Part of a clip's frames in which another face at least a third as high is seen."""
    own = tracks[clip.track]
    seen = np.zeros(own.end - own.start, bool)
    for number, other in tracks.items():
        if number != clip.track and height_of(other.landmarks) >= OTHER_FACE * height_of(own.landmarks):
            seen[max(other.start - own.start, 0) : max(other.end - own.start, 0)] = True
    return float(seen.mean())


def read_tracks(path: Path) -> tuple[dict[int, Tracked], tuple[int, int]]:
    """Every face of a piece by its number, and the size (W, H) of the pictures."""
    with np.load(path, allow_pickle=False) as found:
        size = found["size"]
        tracks = {}
        for name in found.files:
            if name.startswith("track_"):
                number = int(name.removeprefix("track_"))
                landmarks = found[name].astype(np.float64)
                start = int(found[f"start_{number}"])
                tracks[number] = Tracked(landmarks, float(found[f"sharpness_{number}"]), start, start + len(landmarks))
    return tracks, (int(size[0]), int(size[1]))


def fault_of(work: Work, clip: Piece) -> tuple[str, str] | None:
    """Why a face is not taken: a reason, and what was measured; None for one that is."""
    options = work.options
    tracks, size = read_tracks(work.file("faces", f"{clip.piece}.npz"))
    own = tracks[clip.track]
    if options.several_faces == "drop" and (share := others_beside(clip, tracks)) > OTHER_FRAMES:
        return "several faces", f"another face in {share:.0%} of the frames"
    if (pixels := height_of(own.landmarks)) < options.min_face:
        return "small", f"a face of {pixels:.0f} pixels, less than {options.min_face:.0f}"
    if (share := cut_off(own.landmarks, size)) > BAD_FRAMES:
        return "cut off", f"at the border in {share:.0%} of the frames"
    if own.sharpness < options.min_sharpness:
        return "blurred", f"sharpness {own.sharpness:.3f}, less than {options.min_sharpness}"
    if (share := turned(own.landmarks, options.max_degrees)) > BAD_FRAMES:
        return "turned away", f"over {options.max_degrees:.0f} degrees in {share:.0%} of the frames"
    if (share := float(1 - np.isfinite(own.landmarks).all((1, 2)).mean())) > MISSING_FRAMES:
        return "lost", f"the face is lost in {share:.0%} of the frames"
    if (share := voiced(work, clip)) < options.min_voice:
        return "no speech", f"voice {share:.0%} of the time"
    return None


def filter_clip(work: Work, clip: Piece) -> Outcome:
    """The step `filters`."""
    fault = fault_of(work, clip)
    if fault is None:
        return Outcome((clip,))
    return Outcome((), (Dropped(clip.id, *fault, clip.frames / FPS),))
