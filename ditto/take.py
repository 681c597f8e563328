"""Take: the motion of a recording, generated once; edited, cut, joined and rendered again (docs/takes.md).

take = head.take(portrait, "speech.flac").edit(ditto.Timeline().layer({"gain.mouth": 0}, start=3.2, end=3.6))
take.save("talk.take")
for frame in head.render(portrait, take): ...
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from ditto.controls import Controls
from ditto.controls.timeline import Timeline, View
from ditto.controls.timeline_file import data_of, timeline_of
from ditto.errors import AudioError, TakeError, TimelineError
from ditto.frame import Frame
from ditto.media.audio import AudioReader, check_samples
from ditto.media.files import Readable, is_readable, write_file
from ditto.media.joining import Piece, blocks_of, crossfaded, write_joined
from ditto.media.pixels import OF_ALPHA, OUTPUTS
from ditto.media.rates import FPS
from ditto.motion.emotion import EMOTIONS
from ditto.motion.motion import MOST, MOTION_SIZE, Motion
from ditto.motion.style import MAX_STRENGTH
from ditto.performer import Capability, Draw, Performer, check_capabilities, expect_own
from ditto.row_performer import RowShot
from ditto.stream import MAX_SEED, FrameEdits, Speech
from ditto.values import is_same, typed

if TYPE_CHECKING:
    from ditto.controls.driving import Performance
    from ditto.performer import Appearance, Edits, Shot
    from ditto.portrait.portrait import Portrait

FORMAT, VERSION = "ditto take", 1
MAX_FILE_BYTES = 1 << 28
MAX_FRAMES = 4 * 3600 * FPS

Array = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32 | np.float64 | np.int16]
Audio = Readable | Samples


@dataclass(frozen=True)
class Sound:
    """What recording a take belongs to.

    Attributes:
        path: of the file; None if samples were given.
        sha256: of the bytes of the file, or of the samples as float32.
    """

    path: str | None
    sha256: str


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive frames of one recording, as generated, and what they are shown with.

    Attributes:
        rows: (N, 70) of the motion space of the bundle, before every edit.
        emotions: (N, 8) asked for when each row was sampled.
        before: (70,) the row before the first, None at the beginning of the recording.
        first: number of the first frame in the recording; times of the timeline are times of the recording.
        seed: of the generation.
        emotion: (8,) to show where the timeline shows no other.
        style: strength of the motion of head and brows.
        still: whether the head stays where it is in the portrait.
        timeline: edits.
        sound: the recording; None if nobody knows it.
    """

    rows: Array
    emotions: Array
    before: Array | None
    first: int
    seed: int
    emotion: Array
    style: float
    still: bool
    timeline: Timeline
    sound: Sound | None

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, stop: int) -> Clip:
        """Its frames [start, stop)."""
        before = self.rows[start - 1] if start else self.before
        rows, emotions = self.rows[start:stop], self.emotions[start:stop]
        return replace(self, rows=rows, emotions=emotions, before=before, first=self.first + start)

    def continues(self, earlier: Clip) -> bool:
        """Whether it goes on where another clip of the same recording ends."""
        same = all(
            getattr(self, name) == getattr(earlier, name) for name in ("seed", "style", "still", "timeline", "sound")
        )
        return (
            same
            and self.before is not None
            and self.first == earlier.first + len(earlier)
            and np.array_equal(self.before, earlier.rows[-1])
            and np.array_equal(self.emotion, earlier.emotion)
        )

    def frame_edits(self, view: View) -> FrameEdits:
        """The edits of its frames, by their numbers in the recording."""
        timeline = self.timeline if self.timeline.layers or self.timeline.events else None
        return FrameEdits(self.emotion, self.style, self.still, timeline, view=view)


@dataclass(frozen=True, eq=False)
class Take:
    """Motion that was generated, with its edits. Made by `TalkingHead.take` or `Take.load`; every call gives a new one.

    Attributes:
        bundle: id of the bundle that generated it (`Bundle.id`).
        clips: in order.

    Raises:
        ValueError: no clips, or more than `MAX_FRAMES` frames.
    """

    bundle: str
    clips: tuple[Clip, ...]

    def __post_init__(self) -> None:
        if not self.clips or not all(len(clip) for clip in self.clips):
            raise ValueError("expected a take of at least one frame, got none; give rows of motion")
        if self.frames > MAX_FRAMES:
            raise ValueError(f"expected a take of at most {MAX_FRAMES} frames, got {self.frames}; cut it")

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return sum(map(len, self.clips))

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / FPS

    def check_bundle(self, bundle: str) -> None:
        """Raise TakeError unless the take comes from the bundle with this id."""
        if bundle != self.bundle:
            raise TakeError(
                f"expected a take of the bundle {bundle}, got one of {self.bundle}, which only those weights can draw; load "
                "them (--bundle), or extract the take again"
            )

    def edit(self, timeline: Timeline, *, replace_others: bool = False) -> Take:
        """The take with a timeline on top of its edits, or in their place.

        Args:
            timeline: in seconds of this take.

        Raises:
            ValueError: the take never shows something in it (`Timeline.outside`).
        """
        timeline.check_within(self.seconds)
        clips, start = [], 0
        for clip in self.clips:
            own = timeline.shifted((clip.first - start) / FPS)
            clips.append(replace(clip, timeline=own if replace_others else clip.timeline + own))
            start += len(clip)
        return Take(self.bundle, tuple(clips))

    def cut(self, start: float = 0.0, end: float | None = None) -> Take:
        """The part from `start` to `end` seconds (to the nearest frames); None: to the end.

        Raises:
            ValueError: that is no part of the take.
        """
        end = self.seconds if end is None else end
        if not (0.0 <= start < end <= self.seconds + 0.5 / FPS) or round(start * FPS) == round(end * FPS):
            raise ValueError(
                f"expected a part of the take, 0 to {self.seconds:.2f} s, of at least one frame, got {start:g} to {end:g} s; "
                "choose other times"
            )
        first, last = round(start * FPS), min(round(end * FPS), self.frames)
        clips, begin = [], 0
        for clip in self.clips:
            a, b = max(first - begin, 0), min(last - begin, len(clip))
            if a < b:
                clips.append(clip.part(a, b))
            begin += len(clip)
        return Take(self.bundle, tuple(clips))

    def join(self, *others: Take) -> Take:
        """This take, then the others. Where two clips meet, motion and sound go over without a jump when they are rendered;
        parts that belong together become one again.

        Raises:
            TakeError: they come from different bundles.
        """
        clips = list(self.clips)
        for other in others:
            if other.bundle != self.bundle:
                raise TakeError(
                    f"expected takes of one bundle, got {self.bundle} and {other.bundle}; extract one of them again"
                )
            for clip in other.clips:
                last = clips[-1]
                if clip.continues(last):
                    rows, emotions = (
                        np.concatenate([last.rows, clip.rows]),
                        np.concatenate([last.emotions, clip.emotions]),
                    )
                    clips[-1] = replace(last, rows=rows, emotions=emotions)
                else:
                    clips.append(clip)
        return Take(self.bundle, tuple(clips))

    def __add__(self, other: Take) -> Take:
        return self.join(other) if isinstance(other, Take) else NotImplemented

    def shots(self, view: View) -> Iterator[tuple[Shot, Edits]]:
        """What to draw, frame by frame: for each the row and its edits, for a portrait with this view."""
        for number, clip in enumerate(self.clips):
            edits = clip.frame_edits(view)
            for n, (row, emotion) in enumerate(zip(clip.rows, clip.emotions, strict=True)):
                yield RowShot(row, emotion, number, clip.before if n == 0 else None), edits.at(clip.first + n)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the take to one file: safetensors with a JSON description. It appears under its name when complete.

        Raises:
            OutputError: the file cannot be written there.
        """
        from safetensors.numpy import save

        tensors: dict[str, Array] = {}
        for n, clip in enumerate(self.clips):
            tensors |= {f"{n}.rows": clip.rows, f"{n}.emotions": clip.emotions}
            if clip.before is not None:
                tensors[f"{n}.before"] = clip.before
        described = {
            "format": FORMAT,
            "version": VERSION,
            "bundle": self.bundle,
            "clips": [_described(c) for c in self.clips],
        }
        arrays = {name: np.ascontiguousarray(a) for name, a in tensors.items()}
        write_file(path, save(arrays, {"ditto": json.dumps(described)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Take:
        """A take written by `save`.

        Raises:
            TakeError: the file is missing, damaged, no take, or of another version.
        """
        from safetensors import SafetensorError, safe_open

        name = os.fspath(path)
        try:
            size = os.stat(path).st_size
            if size > MAX_FILE_BYTES:
                raise TakeError(f"{name} is {size >> 20} MiB, larger than any take; give a file that `Take.save` wrote")
            with safe_open(name, framework="np") as file:
                described = _description(name, (file.metadata() or {}).get("ditto"))
                tensors = {}
                for key in file.keys():
                    if file.get_slice(key).get_dtype() != "F32":
                        raise TakeError(
                            f"{name}: expected numbers of type F32, got {key} as another; extract the take again"
                        )
                    tensors[key] = file.get_tensor(key)
        except FileNotFoundError:
            raise TakeError(f"{name}: no such file; expected a take that `Take.save` wrote") from None
        except (OSError, SafetensorError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise TakeError(f"{name} is damaged or no take ({reason}); extract it again") from None
        try:
            clips = [_clip(n, clip, tensors) for n, clip in enumerate(_expect(described, "clips", list))]
            if tensors:
                raise ValueError(f"expected no tensors beside those of the clips, got {', '.join(sorted(tensors))}")
            return cls(_expect(described, "bundle", str), tuple(clips))
        except (ValueError, TimelineError) as error:
            raise TakeError(f"{name}: {error}; extract the take again") from None


def record(
    performer: Performer,
    appearance: Appearance,
    bundle: str,
    blocks: Iterable[Samples],
    edits: FrameEdits,
    seed: int,
    path: str | None,
) -> Take:
    """Generate the motion of a recording, without pictures.

    Args:
        bundle: its id.
        blocks: of samples, mono at 16 kHz.
        edits: of its frames; `controls` is a timeline or None.
        path: of the recording, if it is a file.

    Raises:
        AudioError: no samples, or unusable ones.
        ValueError: the performer has no rows of motion.
    """
    check_capabilities(performer, [Capability.MOTION, Capability.REDRAW, *edits.needs])
    speech = Speech(performer, appearance, seed, performer.latencies[0], lambda: edits)
    shots, digest, size = [], hashlib.sha256(), 0
    for given in blocks:
        block = check_samples(given, size)
        size += block.size
        digest.update(block.tobytes())
        shots += speech.push(block)
    rows = [expect_own(shot, RowShot) for shot in [*shots, *speech.flush()]]
    if not rows:
        raise AudioError("expected at least one sample of audio, got none; give a recording with sound in it")
    timeline = edits.controls if isinstance(edits.controls, Timeline) else Timeline()
    clip = Clip(
        rows=np.stack([shot.row for shot in rows]),
        emotions=np.stack([shot.emotion for shot in rows]),
        before=None,
        first=0,
        seed=seed,
        emotion=edits.emotion,
        style=edits.style,
        still=edits.still,
        timeline=timeline,
        sound=Sound(None, digest.hexdigest()) if path is None else Sound(path, digest_of(path)),
    )
    return Take(bundle, (clip,))


def timeline_from(controls: Controls | Timeline | None) -> Timeline | None:
    """The timeline to keep in a take.

    Raises:
        TypeError: a function, which no file can keep.
        ValueError: controls with `only` or `freeze`.
    """
    if controls is None or isinstance(controls, Timeline):
        return controls
    if not isinstance(controls, Controls):
        raise TypeError(
            f"expected controls that a file can keep, Controls or a Timeline, got {type(controls).__name__}; give one of these"
        )
    if controls.only or controls.freeze:
        raise ValueError("expected controls without only and freeze for a take, got some; use gain.* of regions")
    return Timeline().layer(controls.names())


def frames_of(
    performer: Performer,
    portrait: Portrait,
    appearance: Appearance,
    take: Take,
    sound: Iterable[Array],
    performance: Performance | None = None,
    output: str = "rgb24",
) -> Iterator[Frame]:
    """The frames of a take in a pixel format, one of `OUTPUTS`, with the blocks (640,) of its sound."""
    face = performer.face(appearance, take.clips[0].seed)
    for index, ((shot, edits), block) in enumerate(zip(take.shots(View.of(portrait)), sound, strict=False)):
        if performance is not None:
            edits = replace(edits, driving=performance.at(index))
        drawn = performer.draw([Draw(face, shot, edits, alpha=output in OF_ALPHA)])[0]
        face = drawn.face
        alpha = portrait.alpha if drawn.alpha is None else drawn.alpha
        yield Frame(OUTPUTS[output](drawn.image, alpha), index, index / FPS, block, drawn.motion, speech_index=index)


def motion_of(performer: Performer, portrait: Portrait, appearance: Appearance, take: Take) -> Motion:
    """The motion (N, 70) of the frames of a take, edits and transitions included. No picture is drawn."""
    face, rows = performer.face(appearance, take.clips[0].seed), []
    for shot, edits in take.shots(View.of(portrait)):
        moved = performer.move([Draw(face, shot, edits)])[0]
        face = moved.face
        rows.append(moved.motion.values)
    return Motion(np.stack(rows))


class TakeSound:
    """The recordings of a take, checked.

    Args:
        take: whose sound is asked for.
        given: recordings in place of the files that the take names: one for a take of one recording; else one for each, which
            are told by their SHA-256.

    Raises:
        AudioError: a file is not there any more or has changed, or nothing given fits.
    """

    def __init__(self, take: Take, given: Audio | Sequence[Audio] | None = None) -> None:
        self._take = take
        wanted = dict.fromkeys(clip.sound for clip in take.clips)
        offers: list[Audio] = (
            [*given] if isinstance(given, (list, tuple)) else [] if given is None else [cast("Audio", given)]
        )
        self._found: dict[Sound | None, Audio | None] = {}
        for sound in wanted:
            if offers and len(wanted) == 1:
                self._found[sound] = offers[0]
            elif offers and sound is not None:
                fitting = [offer for offer in offers if _digest(offer, sound) == sound.sha256]
                if not fitting:
                    name = sound.path or "samples"
                    raise AudioError(
                        f"expected the recording {name} of the take among those given, got others; give it too"
                    )
                self._found[sound] = fitting[0]
            else:
                self._found[sound] = None if sound is None else _own(sound)

    @property
    def whole(self) -> Readable | None:
        """The file whose sound from its beginning is that of the take; None if there is no such file."""
        clip = self._take.clips[0]
        given = self._found[clip.sound]
        return given if len(self._take.clips) == 1 and clip.first == 0 and is_readable(given) else None

    def blocks(self) -> Iterator[Array]:
        """The sound of each frame, (640,) at 16 kHz."""
        known: dict[Sound | None, Array] = {}
        for clip in self._take.clips:
            if clip.sound not in known:
                known[clip.sound] = _samples(self._found[clip.sound])
        return crossfaded(blocks_of(known[clip.sound], clip.first, len(clip)) for clip in self._take.clips)

    def write(self, path: Path) -> None:
        """Write the joined sound as WAV. Raises AudioError if it is not in files."""
        pieces = []
        for clip in self._take.clips:
            given = self._found[clip.sound]
            if given is not None and not is_readable(given):
                raise AudioError("expected files as the sound of a take, got samples; save them as a file")
            pieces.append(Piece(given, clip.first, len(clip)))
        write_joined(pieces, path)


def _own(sound: Sound) -> Path:
    """The file of a sound; raises AudioError unless it is there and the same."""
    advice = "give the recording: --audio FILE, or audio= in Python"
    if sound.path is None:
        raise AudioError(f"expected the samples that this take was made of, got none; {advice}")
    file = Path(sound.path)
    if not os.path.isfile(file):  # False for a name that no system takes, too
        raise AudioError(f"expected the recording of the take at {file}, got no such file; {advice}")
    if digest_of(file) != sound.sha256:
        raise AudioError(f"expected the recording of the take at {file}, got a file that has changed since; {advice}")
    return file


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file. Raises AudioError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise AudioError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from None
    return digest.hexdigest()


def _digest(offer: Audio, sound: Sound) -> str:
    """SHA-256 of a recording as `sound` has it: of the file, or of the samples."""
    if sound.path is not None and isinstance(offer, (str, os.PathLike)):
        return digest_of(offer)
    return hashlib.sha256(_samples(offer).tobytes()).hexdigest()


def _samples(given: Audio | None) -> Array:
    if given is None:
        return np.zeros(0, np.float32)
    return np.concatenate(list(AudioReader(given))) if is_readable(given) else check_samples(given)


def _described(clip: Clip) -> dict[str, Any]:
    return {
        "first": clip.first,
        "frames": len(clip),
        "seed": clip.seed,
        "emotion": clip.emotion.tolist(),
        "style": float(clip.style),
        "still": clip.still,
        "timeline": data_of(clip.timeline),
        "sound": None if clip.sound is None else {"path": clip.sound.path, "sha256": clip.sound.sha256},
    }


def _description(name: str, text: str | None) -> dict[str, Any]:
    """The JSON description of a take. Raises TakeError for another format or version, ValueError for no JSON."""
    described = json.loads(text) if text is not None else None
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise TakeError(f"{name} is no take; expected a file that `Take.save` wrote, extract the take again")
    if not is_same(described.get("version"), VERSION):
        raise TakeError(
            f"{name} is a take of version {described.get('version')!r}, this ditto reads version {VERSION}; use the ditto "
            "that wrote it, or extract the take again"
        )
    return described


def _expect(described: Mapping[str, Any], key: str, kind: type) -> Any:
    value = described.get(key) if isinstance(described, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"expected {key} as {kind.__name__}, got {type(value).__name__}")
    return value


def _clip(n: int, described: Mapping[str, Any], tensors: dict[str, Array]) -> Clip:
    """A clip of a file, checked; takes its tensors out. Raises ValueError or TimelineError for what no clip has."""
    frames = _expect(described, "frames", int)
    first, seed = _expect(described, "first", int), _expect(described, "seed", int)
    style = float(_expect(described, "style", float))
    if not (0 <= first <= MAX_FRAMES and 0 <= seed <= MAX_SEED and 0.0 <= style <= MAX_STRENGTH):
        raise ValueError(f"expected first, seed and style of clip {n} in range, got {first}, {seed}, {style}")
    emotion = np.asarray(typed("emotion", tuple[float, ...], described.get("emotion")))
    emotion = np.asarray(_weights(emotion, f"emotion of clip {n}"), np.float32)
    sound = None
    if described.get("sound") is not None:
        kept = _expect(described, "sound", dict)
        path = None if kept.get("path") is None else _expect(kept, "path", str)
        sound = Sound(path, _expect(kept, "sha256", str))
    before = tensors.pop(f"{n}.before", None)
    return Clip(
        rows=_rows(tensors.pop(f"{n}.rows", None), (frames, MOTION_SIZE), f"rows of clip {n}"),
        emotions=_weights(tensors.pop(f"{n}.emotions", None), f"emotions of clip {n}", (frames,)),
        before=None if before is None else _rows(before, (MOTION_SIZE,), f"row before clip {n}"),
        first=first,
        seed=seed,
        emotion=emotion,
        style=style,
        still=_expect(described, "still", bool),
        timeline=timeline_of(_expect(described, "timeline", dict), f"timeline of clip {n}"),
        sound=sound,
    )


def _rows(values: Array | None, shape: tuple[int, ...], name: str) -> Array:
    if values is None or values.shape != shape or not np.all(np.abs(values) <= MOST):
        found = "none" if values is None else f"{values.shape}, or numbers beyond {MOST:g}"
        raise ValueError(f"expected {name} as finite numbers {shape}, got {found}")
    return values


def _weights(values: Any, name: str, shape: tuple[int, ...] = ()) -> Array:
    shape = (*shape, len(EMOTIONS))
    fits = values is not None and values.shape == shape and values.dtype.kind == "f"
    if not fits or not np.all((values >= 0.0) & (values <= 1.0 + 1e-6)):
        raise ValueError(f"expected {name} as weights {shape} in [0, 1], got others")
    return np.asarray(values, np.float32)
