"""A scene: several faces of one picture, each with its own speech; a face that does not speak listens to the others.

    portraits = head.register_faces("two.jpg")
    frames = head.animate_scene([Speaker(portraits[0], "a.wav"), Speaker(portraits[1], "b.wav")])

The recordings run at the same time. Where a speaker's own recording is silent for long enough, the face shows idle motion and
reacts to the voices of the others, as in a live session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ditto.controls.timeline import MIDDLE, Timeline
from ditto.errors import AudioError
from ditto.frame import Frame
from ditto.media.audio import check_samples, read_audio
from ditto.media.files import Readable, is_readable
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.media.voice import WINDOW_SAMPLES, VoiceDetector
from ditto.motion.emotion import emotion_vector
from ditto.motion.listening import Listener
from ditto.motion.style import style_strength
from ditto.performer import Appearance, Capability, Draw, Drawn, Idle, Performer, Shot, check_capabilities
from ditto.stream import MAX_SEED, FrameEdits, Speech, check_edit, check_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ditto.controls.timeline import Edit
    from ditto.portrait.portrait import Portrait

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.float32 | np.float64 | np.int16]

# Chosen by eye: a pause in which a person listens is longer than one for breath; lips part before the voice.
LISTEN_FRAMES = 20  # of silence, after which the face no longer waits for its own next word
LEAD_FRAMES, TRAIL_FRAMES = 6, 10  # that a turn begins before its first voice, and ends after its last
SEED_STEP, TURN_STEP = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03  # of speakers, of turns; odd: no two of either are the same


@dataclass(frozen=True, eq=False)
class Speaker:
    """A face of a scene, and what it says.

    Attributes:
        portrait: from `register_faces`; all speakers of a scene share the picture.
        audio: a recording: a path, the bytes of a file, an open file, or samples (N,), mono at 16 kHz; None: it only listens.
        emotion, still, controls, style: as of `TalkingHead.stream`.
    """

    portrait: Portrait
    audio: Readable | Samples | None = None
    emotion: Mapping[str, float] | None = None
    still: bool = False
    controls: Edit | None = None
    style: str | float = "natural"

    def edits(self) -> FrameEdits:
        """What was asked for about every frame. Raises ValueError, TypeError."""
        controls = check_edit(self.controls)
        view = controls.view(self.portrait) if isinstance(controls, Timeline) else MIDDLE
        return FrameEdits(emotion_vector(self.emotion), style_strength(self.style), self.still, controls, None, view)

    def samples(self) -> Array:
        """Its recording (N,), mono at 16 kHz; none without one. Raises AudioError."""
        if self.audio is None:
            return np.zeros(0, np.float32)
        return read_audio(self.audio) if is_readable(self.audio) else check_samples(self.audio)


def seed_of(seed: int, speaker: int) -> int:
    """The seed of a speaker's randomness: two faces do not blink in step."""
    return (check_seed(seed) + speaker * SEED_STEP) & MAX_SEED


class Turn(NamedTuple):
    """Frames [first, end) in which a face speaks."""

    first: int
    end: int


def turns_of(samples: Array) -> list[Turn]:
    """The turns in a recording (N,), mono at 16 kHz, by its voice."""
    frames = -(-len(samples) // SAMPLES_PER_FRAME)
    found = VoiceDetector().push(samples)
    voiced = np.zeros(frames, bool)
    for window in np.flatnonzero(found):
        start = window * WINDOW_SAMPLES
        voiced[start // SAMPLES_PER_FRAME : (start + WINDOW_SAMPLES - 1) // SAMPLES_PER_FRAME + 1] = True
    turns: list[Turn] = []
    for frame in range(frames):
        if not voiced[frame]:
            continue
        first, end = max(frame - LEAD_FRAMES, 0), min(frame + 1 + TRAIL_FRAMES, frames)
        if turns and first <= turns[-1].end + LISTEN_FRAMES - LEAD_FRAMES - TRAIL_FRAMES:
            turns[-1] = Turn(turns[-1].first, end)
        else:
            turns.append(Turn(first, end))
    return turns


class Part:
    """One face of a scene while it is generated, frame by frame.

    Args:
        performer, appearance: of the face.
        speaker: the face and its options.
        samples: (N,) its recording.
        seed: of its randomness.
    """

    def __init__(
        self, performer: Performer, appearance: Appearance, speaker: Speaker, samples: Array, seed: int
    ) -> None:
        self._performer, self._appearance, self._seed = performer, appearance, seed
        self._edits = speaker.edits()
        check_capabilities(performer, [Capability.IDLE, *self._edits.needs])
        self._samples = samples
        self._turns = turns_of(samples) if len(samples) else []
        self._listener = Listener(seed) if Capability.LISTENING in performer.supports else None
        self._face = performer.face(appearance, seed)
        self._state = performer.begin(appearance, seed, performer.latencies[0])
        self._shots: deque[Shot] = deque()

    def frame(self, number: int, others: Array) -> Drawn:
        """The picture of a frame; frames are asked for in order. `others`: (640,) the sound of the other faces in it."""
        shot = self._shot(number)
        edits = self._edits.at(number)
        if self._listener is not None:
            self._listener.push(others)
            edits = replace(edits, reaction=self._listener.react())
        drawn = self._performer.draw([Draw(self._face, shot, edits)])[0]
        self._face = drawn.face
        return drawn

    def _shot(self, number: int) -> Shot:
        """The shot of a frame. A turn is generated when its first frame is due."""
        if self._turns and number == self._turns[0].first:
            turn, *self._turns = self._turns
            self._shots.clear()  # idle ones, of a performer that makes several at a time
            seed = (self._seed + (turn.first + 1) * TURN_STEP) & MAX_SEED
            speech = Speech(
                self._performer,
                self._appearance,
                seed,
                self._performer.latencies[0],
                lambda: self._edits,
                turn.first,
            )
            sound = self._samples[turn.first * SAMPLES_PER_FRAME : turn.end * SAMPLES_PER_FRAME]
            self._shots.extend(speech.push(sound))
            self._shots.extend(speech.flush())
        if not self._shots:
            job = Idle(self._state, self._edits.emotion_at(number), lambda shot: self._edits.at(number + shot))
            (idle,) = self._performer.idle([job])
            self._state = idle.state
            self._shots.extend(idle.shots)
        return self._shots.popleft()


def animate_scene(
    performer: Performer, appearances: Sequence[Appearance], speakers: Sequence[Speaker], seed: int = 0
) -> Iterator[Frame]:
    """The frames of a scene, as long as the longest recording, one by one. See `TalkingHead.animate_scene`."""
    picture = check_speakers([speaker.portrait for speaker in speakers]).picture
    sounds = [speaker.samples() for speaker in speakers]
    frames = max(-(-len(sound) // SAMPLES_PER_FRAME) for sound in sounds)
    if frames == 0:
        raise AudioError("expected a recording for one speaker at least, got none; give one an audio")
    tracks = np.zeros((len(sounds), frames * SAMPLES_PER_FRAME), np.float32)
    for track, sound in zip(tracks, sounds, strict=True):
        track[: len(sound)] = sound
    parts = [
        Part(performer, appearance, speaker, sound, seed_of(seed, i))
        for i, (appearance, speaker, sound) in enumerate(zip(appearances, speakers, sounds, strict=True))
    ]
    return _frames(picture, parts, tracks, frames)


def _frames(picture: Pixels, parts: Sequence[Part], tracks: Array, frames: int) -> Iterator[Frame]:
    for number in range(frames):
        sounds = tracks[:, number * SAMPLES_PER_FRAME : (number + 1) * SAMPLES_PER_FRAME]
        whole = sounds.sum(0)
        images = [part.frame(number, np.clip(whole - own, -1.0, 1.0)).image for part, own in zip(parts, sounds, strict=True)]
        image = compose(picture, images)
        yield Frame(image, number, number / FPS, np.clip(whole, -1.0, 1.0), None, speech_index=number)


def compose(picture: Pixels, images: Sequence[Pixels]) -> Pixels:
    """What several pictures of one scene (H, W, 3) changed of it, in one picture."""
    import cv2

    image = images[0]
    for other in images[1:]:
        # What rose and what fell, saturated at 0 and 255: four passes over bytes.
        raised = cv2.add(image, cv2.subtract(other, picture))
        image = np.asarray(cv2.subtract(raised, cv2.subtract(picture, other)), np.uint8)
    return image


def check_speakers(portraits: Sequence[Portrait]) -> Portrait:
    """The first of several portraits that are different faces of one picture.

    Raises:
        ValueError: none, different pictures, or one face twice.
    """
    if not portraits:
        raise ValueError("expected one speaker or more, got none; give each face of the picture a Speaker")
    first = portraits[0]
    for portrait in portraits[1:]:
        if portrait.picture is not first.picture and not np.array_equal(portrait.picture, first.picture):
            raise ValueError(
                "expected speakers that share a picture, got different pictures; make their portraits with register_faces"
            )
    for i, portrait in enumerate(portraits):
        for j in range(i):
            if _middle_inside(portrait, portraits[j]):
                raise ValueError(f"expected one speaker a face, got speakers {j} and {i} for one; choose another face")
    return first


def _middle_inside(portrait: Portrait, other: Portrait) -> bool:
    """Whether the middle of a face lies in the other face."""

    def in_picture(one: Portrait) -> npt.NDArray[np.float64]:
        return one.landmarks[:, :2] @ one.crop_to_picture[:2, :2].T + one.crop_to_picture[:2, 2]

    own, them = in_picture(portrait), in_picture(other)
    middle = (own.min(0) + own.max(0)) / 2
    return bool((middle > them.min(0)).all() and (middle < them.max(0)).all())
