"""The step `faces`: every face of a piece, followed from frame to frame.

A face is followed as by `ditto.training.tracks.follow`: where it was says where to look for it. It stays the same face
only while its place and its looks go on: the boxes of two frames overlap, and the pictures in them are alike. Where two
faces come to lie over each other nobody can say which is which afterwards, so both tracks end there, and new ones begin
when they have parted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ditto.media.footage import pictures
from ditto.media.rates import FPS
from ditto.portrait.face_mesh import LANDMARKS
from ditto.portrait.face_networks import MAX_OVERLAP, MESH_SIZE, Floats, cut, networks, overlap
from ditto.portrait.follow import EYE_CORNERS, MIN_PRESENCE, field_of
from ditto.training.dataset import write_arrays
from ditto.training.prepare.work import Dropped, Outcome, Piece, Work

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float32]

MIN_SCORE = 0.5  # of a detection in a frame where there may be no face, as MediaPipe's own
SEARCH_FRAMES = 5  # between two searches for further faces
LONGEST_GAP = 5  # frames that a face may be lost
MIN_CONTINUITY = 0.3  # intersection over union of a face's boxes in two frames
# Correlation of a face's pictures in two frames. From one frame to the next of 17 talkers, .86 or more (one who is thrown
# about: .64); of two different people, .73 or less (136 pairs).
MIN_LIKENESS = 0.8
PATCH = 24  # pixels, side of those pictures


@dataclass
class Track:
    """One face: its landmarks (478, 3) by frame, from `start` on; NaN where it was lost for a moment."""

    start: int
    landmarks: list[Floats]
    sharpness: list[float]
    field: tuple[tuple[float, float], float, float]
    box: Floats
    patch: Floats
    lost: int = 0
    ended: bool = False


@dataclass
class Found:
    """A face in one frame."""

    landmarks: Floats
    box: Floats
    field: tuple[tuple[float, float], float, float]
    patch: Floats
    sharpness: float


def look(frame: Bytes, where: tuple[tuple[float, float], float, float]) -> Found | None:
    """The face in a field of the mesh network, or None."""
    import cv2

    centre, side, angle = where
    square = cut(frame, centre, side, angle, MESH_SIZE, beyond_is_black=False)
    found, presence = networks().mesh(square)
    if presence < MIN_PRESENCE:
        return None
    c, s = np.cos(angle), np.sin(angle)
    flat = (found[:, :2] / MESH_SIZE - 0.5) @ np.array([[c, s], [-s, c]]) * side + centre
    landmarks = np.column_stack([flat, found[:, 2] * (side / MESH_SIZE)])
    box = np.concatenate([flat.min(0), flat.max(0)])
    low, high = np.clip(np.stack([found[:, :2].min(0), found[:, :2].max(0)]).astype(int), 0, MESH_SIZE - 1)
    (left, top), (right, bottom) = low, np.maximum(high, low + 2)
    face = cv2.cvtColor(square[top:bottom, left:right], cv2.COLOR_RGB2GRAY).astype(np.uint8)
    patch = cv2.resize(face, (PATCH, PATCH), interpolation=cv2.INTER_AREA).astype(np.float64)
    return Found(landmarks, box, field_of(box, flat[list(EYE_CORNERS)]), patch - patch.mean(), sharpness(face))


def sharpness(face: Bytes) -> float:
    """Variance of the Laplacian over the variance of a face (H, W) at the mesh network's scale: fine detail in it."""
    import cv2

    return float(cv2.Laplacian(face, cv2.CV_64F).var() / max(float(face.var()), 1e-6))


def likeness(a: Floats, b: Floats) -> float:
    """Correlation of two patches (24, 24) of mean zero."""
    return float((a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9))


def continues(track: Track, found: Found) -> bool:
    """Whether what was found is the track's face."""
    same_place = float(overlap(track.box, found.box[None])[0]) >= MIN_CONTINUITY
    return same_place and likeness(track.patch, found.patch) >= MIN_LIKENESS


def shared(box: Floats, other: Floats) -> float:
    """Intersection of two boxes over the area of the smaller."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    areas = [(b[2:] - b[:2]).prod() for b in (box, other)]
    return float(np.maximum(high - low, 0).prod() / max(min(areas), 1e-9))


class Follower:
    """Follows all faces of one piece, frame by frame."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._frame = 0

    def push(self, frame: Bytes) -> None:
        """The next frame, (H, W, 3) RGB."""
        live = [track for track in self.tracks if not track.ended]
        found = [look(frame, track.field) for track in live]
        for track, face in zip(live, found, strict=True):
            self._extend(track, face)
        live = self._part_overlapping([track for track in live if not track.ended])
        if self._frame % SEARCH_FRAMES == 0 or not live or any(track.lost for track in live):
            self._search(frame, live)
        self._frame += 1

    def _extend(self, track: Track, face: Found | None) -> None:
        if face is not None and not track.lost and not continues(track, face):
            track.ended = True
            return
        if face is not None and continues(track, face):
            track.landmarks.append(face.landmarks)
            track.sharpness.append(face.sharpness)
            track.field, track.box, track.patch, track.lost = face.field, face.box, face.patch, 0
            return
        track.lost += 1
        track.landmarks.append(np.full((LANDMARKS, 3), np.nan))
        if track.lost > LONGEST_GAP:
            track.ended = True

    def _part_overlapping(self, live: list[Track]) -> list[Track]:
        """End both of two tracks that lie over each other, from this frame on."""
        for i, track in enumerate(live):
            for other in live[:i]:
                if float(overlap(track.box, other.box[None])[0]) > MAX_OVERLAP:
                    for one in (track, other):
                        if not one.ended:
                            one.ended = True
                            one.landmarks.pop()
        return [track for track in live if not track.ended]

    def _search(self, frame: Bytes, live: list[Track]) -> None:
        """Begin tracks for faces that nobody follows."""
        detections = networks().detect(frame, "short_range", MIN_SCORE)
        if not detections and not live:
            detections = networks().detect(frame, "full_range")
        for detection in detections:
            if any(shared(detection.box, track.box) > MAX_OVERLAP and not track.lost for track in live):
                continue
            face = look(frame, field_of(detection.box, detection.eyes))
            if face is None or any(shared(face.box, track.box) > MAX_OVERLAP and not track.lost for track in live):
                continue
            again = next((track for track in live if track.lost and continues(track, face)), None)
            if again is not None:  # found after it was lost for a moment
                again.landmarks.pop()
                self._extend(again, face)
                continue
            track = Track(self._frame, [face.landmarks], [face.sharpness], face.field, face.box, face.patch)
            self.tracks.append(track)
            live.append(track)


def follow_all(frames: Iterable[Bytes]) -> list[Track]:
    """The tracks of all faces in frames (H, W, 3) RGB, by their beginning; none ends with a lost frame."""
    follower = Follower()
    for frame in frames:
        follower.push(frame)
    for track in follower.tracks:
        while track.landmarks and not np.isfinite(track.landmarks[-1]).all():
            track.landmarks.pop()
    return [track for track in follower.tracks if track.landmarks]


def track_faces(work: Work, piece: Piece) -> Outcome:
    """The step `faces`: `PIECE.npz` with for each face N `track_N` (T, 478, 3) float32 in pixels, `start_N` and
    `sharpness_N`, and `size` (W, H)."""
    size = (0, 0)
    count = 0

    def counted() -> Iterator[Bytes]:
        nonlocal size, count
        for frame in pictures(piece.path, piece.start, piece.end):
            size, count = (frame.shape[1], frame.shape[0]), count + 1
            yield frame

    found = follow_all(counted())
    tracks = [track for track in found if len(track.landmarks) >= work.options.min_frames]
    dropped = []
    if count < piece.frames - FPS:
        missing = (piece.frames - count) / FPS
        detail = f"the pictures end {missing:.2f} s before the file says"
        dropped.append(Dropped(piece.id, "damaged", detail, missing))
    if not tracks:
        longest = max((len(track.landmarks) for track in found), default=0) / FPS
        reason = "too short" if longest else "no face"
        detail = f"the longest track of a face lasts {longest:.2f} s" if longest else "no face was found"
        return Outcome((), (*dropped, Dropped(piece.id, reason, detail, count / FPS)))
    arrays: dict[str, npt.ArrayLike] = {"size": np.array(size)}
    items = []
    for number, track in enumerate(tracks):
        arrays[f"track_{number}"] = np.asarray(track.landmarks, np.float32)
        arrays[f"sharpness_{number}"] = np.median(track.sharpness)
        start = piece.start + track.start
        arrays[f"start_{number}"] = start
        id = f"{piece.id}-{number}"
        items.append(replace(piece, id=id, track=number, start=start, end=start + len(track.landmarks)))
    write_arrays(work.file("faces", f"{piece.id}.npz"), arrays)
    return Outcome(tuple(items), tuple(dropped))


def landmarks_of(work: Work, clip: Piece) -> Array:
    """(T, 478, 3) the landmarks of a clip, pixels; NaN where the face was lost for a moment."""
    with np.load(work.file("faces", f"{clip.piece}.npz"), allow_pickle=False) as found:
        return np.asarray(found[f"track_{clip.track}"], np.float32)
