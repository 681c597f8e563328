"""A performance from a video: what an actor's face does, against the actor's own neutral face."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike, fsdecode

import numpy as np
import numpy.typing as npt

from ditto.controls.driving import Performance
from ditto.errors import ExchangeError, NoFaceError
from ditto.exchange.track import MOST_FRAMES
from ditto.media.footage import pictures
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    FPS,
    KEYPOINTS,
    MOTION_SIZE,
    SLOW_KEYPOINTS,
    TEMPLATE_APERTURE,
    TRANSLATION,
    UPPER_LIDS,
    Keypoint,
    euler_degrees,
    rotation_matrix,
)
from ditto.portrait.face_mesh import NECK_ANCHOR, fit_head, keypoints
from ditto.portrait.face_state import own_expression
from ditto.portrait.follow import follow

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

NEUTRAL_EVERY = 5  # the neutral face is the median over each fifth frame
HELD_SECONDS, FADE_SECONDS = 0.2, 0.4  # a lost face is held so long, then fades; by eye
MOST_SHIFT, MOST_GROWTH = 0.12, 0.15  # face units and share: an actor may walk about, a portrait stays in its picture; by eye
SLOW_SIGMA = 1.0  # frames: takes the tracker's noise off the head, brows, forehead and nose; by eye
SMALLEST_APERTURE = 0.02  # fu: eyes that are shut in most of a video count as open so far


@dataclass(frozen=True)
class Lost:
    """A stretch without a face: begin and end in seconds."""

    start: float
    end: float


def performance_of_video(
    path: str | PathLike[str],
    regions: Mapping[str, float] | None = None,
    report: Callable[[int], None] = lambda frames: None,
) -> tuple[Performance, list[Lost]]:
    """The performance in a video, and where its face was lost: there the last face is held and fades.

    The neutral face is the median of the video, with lips closed and a broad smile taken off, as of a portrait. The head turns
    against its median pose. How far the face shifts and grows is limited softly.

    Args:
        regions: as of `Performance`; None: the whole face and the head.
        report: called with the number of frames tracked so far.

    Raises:
        VideoError: the video cannot be decoded.
        NoFaceError: no frame shows a face.
        ExchangeError: more frames than `MOST_FRAMES`.
        BundleError, EngineError: of the networks that find a face.
    """
    name = fsdecode(path)
    values, lost = performance_of_frames(_counted(pictures(name), name, report), name)
    weights = trust(lost)
    return Performance(values.astype(np.float32), regions or {"all": 1.0}, 0.0, weights), stretches(lost)


def _counted(frames: Iterable[Bytes], name: str, report: Callable[[int], None]) -> Iterable[Bytes]:
    for n, frame in enumerate(frames):
        if n >= MOST_FRAMES:
            raise ExchangeError(f"{name}: expected at most {MOST_FRAMES} frames, got more; cut the video")
        report(n)
        yield frame


def performance_of_frames(frames: Iterable[Bytes], name: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Head values (N, 70) of the lite face of frames (H, W, 3) at 25 a second, and which frames (N,) show no face.

    Frames without a face get values between those around them.

    Raises:
        NoFaceError: no frame shows a face.
    """
    poses: list[tuple[float, Floats, Floats]] = []
    points: list[Floats] = []
    faces: list[npt.NDArray[np.float32]] = []
    lost = []
    for landmarks in follow(frames):
        lost.append(landmarks is None)
        if landmarks is None:
            continue
        scale, rotation, translation, canonical = fit_head(landmarks)
        if len(poses) % NEUTRAL_EVERY == 0:
            faces.append(canonical.astype(np.float32))
        poses.append((scale, rotation, translation))
        points.append(keypoints(canonical))
    if not poses:
        raise NoFaceError(f"expected a face in {name}, got none in {len(lost)} frames; give a video that shows one")
    neutral = np.median(np.stack(faces), 0).astype(np.float64)
    found = head_values(poses, np.stack(points), neutral)
    known = np.flatnonzero(~np.array(lost))
    every = np.arange(len(lost))
    values = np.stack([np.interp(every, known, column) for column in found.T], -1)
    slow = [*range(EXPRESSION.start), *(EXPRESSION.start + 3 * k + axis for k in SLOW_KEYPOINTS for axis in range(3))]
    values[:, slow] = smooth(values[:, slow], SLOW_SIGMA)
    return values, np.array(lost)


def head_values(poses: list[tuple[float, Floats, Floats]], points: Floats, neutral: Floats) -> Floats:
    """Head values (N, 70) of head poses (scale, rotation, translation) and keypoints (N, 21, 3), against a face (478, 3)."""
    own = keypoints(neutral) - own_expression(neutral)
    own[Keypoint.NECK] = NECK_ANCHOR
    delta = points - own
    lids = list(UPPER_LIDS)
    aperture = np.maximum(own[Keypoint.LOWER_LIDS, 1] - own[lids, 1], SMALLEST_APERTURE)
    delta[:, lids, 1] *= TEMPLATE_APERTURE / aperture
    scales = np.array([scale for scale, _, _ in poses])
    rotations = np.stack([rotation for _, rotation, _ in poses])
    places = np.stack([place for _, _, place in poses])
    rest = rotation_matrix(*np.median(euler_degrees(rotations), 0))
    out = np.zeros((len(poses), MOTION_SIZE))
    out[:, 0] = MOST_GROWTH * np.tanh((scales / np.median(scales) - 1.0) / MOST_GROWTH)
    out[:, DEGREES] = euler_degrees(rest.T @ rotations)
    shift = (places - np.median(places, 0)) / scales[:, None]
    out[:, TRANSLATION][:, :2] = MOST_SHIFT * np.tanh(shift[:, :2] / MOST_SHIFT)
    out[:, EXPRESSION] = delta.reshape(len(poses), 3 * KEYPOINTS)
    return out


def smooth(values: Floats, sigma: float) -> Floats:
    """(N, k) smoothed along time by a Gaussian of `sigma` frames, ends repeated."""
    reach = int(np.ceil(3.0 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, [(reach, reach), (0, 0)], mode="edge")
    return np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], -1)


def trust(lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """(N,) how far to trust each frame: 1, falling to 0 where a face is lost for a while, and rising before it is back."""
    known = np.flatnonzero(~lost)
    every = np.arange(len(lost))
    after = np.searchsorted(known, every, "right")
    since = np.where(after > 0, every - known[np.maximum(after - 1, 0)], np.inf) / FPS
    until = np.where(after < len(known), known[np.minimum(after, len(known) - 1)] - every, np.inf) / FPS
    falling = 1.0 - np.clip((since - HELD_SECONDS) / FADE_SECONDS, 0.0, 1.0)
    rising = 1.0 - np.clip(until / FADE_SECONDS, 0.0, 1.0)
    return np.where(lost, np.maximum(falling, rising), 1.0).astype(np.float32)


def stretches(lost: npt.NDArray[np.bool_]) -> list[Lost]:
    """Where frames show no face."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(np.int8), [0]])))
    return [Lost(start / FPS, end / FPS) for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]
