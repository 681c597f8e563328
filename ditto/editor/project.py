"""A project of the editor: a portrait, its motion over a recording, and the timeline file that edits them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ditto.controls.catalog import CATALOG, KEYPOINT_NAMES, Control
from ditto.controls.timeline import Timeline, View
from ditto.controls.timeline_file import data_of, write_timeline
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.motion import Motion, rest_motion, retarget, transform_keypoints
from ditto.motion.space import MotionSpace
from ditto.performer import Draw, Drawn
from ditto.portrait.portrait import Portrait
from ditto.take import Take
from ditto.talking_head import TalkingHead

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

PEAKS = 800  # bars of the drawn sound
QUALITY = 85  # JPEG, of previews
GROUPS = ("head", "gaze", "lids", "brows", "cheeks", "nose", "lips", "jaw", "emotion", "gains", "shapes")
FACE_MARGIN = 1.5  # side of the square around the face, of the face's larger side; chosen by eye
# Ends of a slider, by unit or name, where the control's own range is wider than a person wants to drag through; a number
# field takes the rest. Chosen by hand.
SLIDERS = {
    "degrees": (-25.0, 25.0), "face units": (-0.06, 0.06), "factor": (0.0, 2.0), "head.zoom": (0.8, 1.25),
    "head.right": (-0.2, 0.2), "head.down": (-0.2, 0.2), "openings": (-0.5, 1.0),
}  # fmt: skip


class Project:
    """What the editor shows. Safe to call from several threads.

    Args:
        head: draws the frames.
        portrait: of the take.
        take: the motion to edit.
        timeline: the edit as it is in the file.
        path: of the timeline file; `save` writes it.
        sound_file: a WAV file of the take's sound, for the page.
        samples: (N,) the same, mono at 16 kHz.
    """

    def __init__(
        self,
        head: TalkingHead,
        portrait: Portrait,
        take: Take,
        timeline: Timeline,
        path: Path,
        sound_file: Path,
        samples: Array,
    ) -> None:
        self.head, self.portrait, self.take = head, portrait, take
        self.path, self.sound_file = path, sound_file
        self.timeline = timeline
        self._samples = samples
        self._view = View.of(portrait)

    def __len__(self) -> int:
        return self.take.frames

    @property
    def seconds(self) -> float:
        """Length of the recording."""
        return len(self) / FPS

    def about(self) -> dict[str, Any]:
        """What the page needs to begin."""
        return {
            "file": self.path.name,
            "frames": len(self),
            "seconds": self.seconds,
            "peaks": peaks_of(self._samples, len(self)),
            "keypoints": list(KEYPOINT_NAMES),
            "size": [self.portrait.picture.shape[1], self.portrait.picture.shape[0]],
            "face": self._face(),
            "groups": list(GROUPS),
            "controls": {name: control_data(control) for name, control in CATALOG.items()},
            "timeline": data_of(self.timeline),
        }

    def preview(self, frame: int, timeline: Timeline) -> tuple[bytes, list[tuple[float, float]]]:
        """A frame as a JPEG file, and the keypoints on it: (x, y) as shares of the picture's size."""
        drawn = self.shown(frame, timeline)
        _, jpeg = cv2.imencode(".jpg", drawn.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        return jpeg.tobytes(), self._points(drawn.motion)

    def shown(self, frame: int, timeline: Timeline) -> Drawn:
        """A frame by its number, without the frames before it.

        Where clips of the take were joined, the frames of the transition are shown without it.
        """
        alone = self.take.edit(timeline).cut(frame / FPS, (frame + 1) / FPS)
        shot, edits = next(alone.shots(self._view))
        performer = self.head.performer
        face = performer.face(self.head.appearance(self.portrait), alone.clips[0].seed)
        return performer.draw([Draw(face, shot, edits)])[0]

    def frames(self, timeline: Timeline) -> Iterator[Pixels]:
        """All pictures, in order."""
        for frame in self.head.render(self.portrait, self.take.edit(timeline)):
            yield frame.image

    @property
    def space(self) -> MotionSpace:
        """Of the motion of the take."""
        space = self.head.performer.motion_space
        assert space is not None  # a take has rows of motion
        return space

    def head_values(self, timeline: Timeline) -> Floats:
        """(N, 70) head values (`ditto.motion.space`) of all frames, edits included."""
        motion = self.head.motion(self.portrait, self.take.edit(timeline))
        return self.space.to_head(motion.values, self.portrait)

    def save(self, timeline: Timeline) -> None:
        """Write the timeline file. Raises OutputError."""
        write_timeline(timeline, self.path)
        self.timeline = timeline

    def _face(self) -> tuple[float, ...]:
        """Left, top, width and height of a square around the face, as shares of the picture's size."""
        height, width = self.portrait.picture.shape[:2]
        matrix = self.portrait.crop_to_picture
        marks = self.portrait.landmarks[:, :2] @ matrix[:2, :2].T + matrix[:2, 2]
        size = min(FACE_MARGIN * float(np.ptp(marks, 0).max()), width, height)
        left, top = (marks.min(0) + marks.max(0)) / 2 - size / 2
        return tuple(round(float(x), 4) for x in (left / width, top / height, size / width, size / height))

    def _points(self, motion: Motion | None) -> list[tuple[float, float]]:
        if motion is None or self.space.name != "lite":  # of another space: where they are at rest
            motion = rest_motion(1)[0]
        portrait, pose = self.portrait, retarget(self.portrait, motion)
        turned = pose.delta @ pose.rotation
        posed = transform_keypoints(portrait.canonical_keypoints, pose.scale, pose.rotation, pose.translation, turned)
        half = len(portrait.crop) / 2
        matrix = portrait.crop_to_picture
        height, width = portrait.picture.shape[:2]
        points = (half + half * posed[:, :2]) @ matrix[:2, :2].T + matrix[:2, 2]
        return [(x / width, y / height) for x, y in points.tolist()]


def control_data(control: Control) -> dict[str, Any]:
    """A control as the page takes it."""
    low, high = SLIDERS.get(control.name, SLIDERS.get(control.unit, (control.low, control.high)))
    low, high = max(low, control.low), min(high, control.high)
    return {
        "group": group_of(control),
        "unit": control.unit,
        "neutral": control.neutral,
        "low": control.low,
        "high": control.high,
        "slider": [low, high],
        "step": float(f"{(high - low) / 200:.0e}"),
        "minus": control.minus,
        "plus": control.plus,
    }


def group_of(control: Control) -> str:
    """Under which heading the page shows a control."""
    kind = control.name.partition(".")[0]
    if kind in ("head", "pose", "gaze", "lids"):
        return {"pose": "head"}.get(kind, kind)
    if kind in ("emotion", "style"):
        return "emotion"
    if kind == "gain":
        return "gains"
    if "." not in control.name:
        return "shapes"
    return {"neck": "jaw"}.get(control.region, control.region)


def peaks_of(samples: Array, frames: int) -> list[float]:
    """The largest level in each of `PEAKS` parts of a recording of that many frames, against the loudest."""
    padded = np.zeros(max(frames * SAMPLES_PER_FRAME, PEAKS), np.float32)
    padded[: samples.size] = np.abs(samples[: padded.size])
    parts = np.array_split(padded, min(PEAKS, padded.size))
    peaks = np.array([part.max() for part in parts])
    loudest = float(peaks.max())
    return [round(float(peak), 3) for peak in (peaks / loudest if loudest else peaks)]
