"""TalkingHead: one bundle and its performer, loaded once and shared by all streams and sessions."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from ditto.errors import AudioError, BundleError, InputError, UnsupportedError
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.machine import cores
from ditto.media.audio import SAMPLE_RATE
from ditto.media.files import is_readable, write_file
from ditto.media.pixels import check_pixels
from ditto.motion.emotion import emotion_vector
from ditto.motion.motion import FPS
from ditto.motion.style import style_strength
from ditto.once import Once
from ditto.portrait.matting import cut_out
from ditto.portrait.portrait import Portrait
from ditto.portrait.registration import register, register_faces
from ditto.stream import Frame, FrameEdits, Stream, check_performance, check_seed

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ditto.bundle import Bundle
    from ditto.clip import Clip
    from ditto.controls import Controls
    from ditto.controls.driving import Performance
    from ditto.controls.timeline import Edit, Timeline
    from ditto.full.released import ReleasedSettings
    from ditto.lite.rendering.core import CoreRenderer
    from ditto.live import AsyncSession, Session, SessionOptions
    from ditto.live.scene import AsyncScene
    from ditto.live.settings import Settings
    from ditto.media.files import Readable
    from ditto.media.images import Picture
    from ditto.motion.motion import Motion
    from ditto.performer import Appearance, Performer
    from ditto.portrait.selection import FaceChoice
    from ditto.scene import Speaker
    from ditto.take import Take

    OpenClip = Callable[[Performer, Clip, str, bool], tuple[Performer, Callable[[Iterable[Frame]], Iterator[Frame]]]]

Samples = npt.NDArray[np.float32 | np.float64 | np.int16]  # in [-1, 1], or of 16 bits
# Motion space of a bundle -> module with its `open_performer(bundle, device, precision)`.
PERFORMERS = {"lite": "ditto.lite.performer", "full": "ditto.full.performer"}
PERFORMERS |= dict.fromkeys(("v", "rap"), "ditto.latent.performer")  # no explicit motion: docs/latent.md
# Motion space of a bundle -> module with its `open_clip(performer, clip, loop, whole_face)`.
CLIPS = {"lite": "ditto.lite.video_source", "full": "ditto.full.video_source"}


class TalkingHead:
    """A bundle and its performer, immutable after load. Many streams and sessions share it.

    Made by `ditto.load`.

    Attributes:
        bundle: the weights.
        performer: turns speech into pictures.
        scheduler: computes for all live sessions of this head.
    """

    def __init__(self, bundle: Bundle, performer: Performer, max_sessions: int | None = None) -> None:
        from ditto.live.scheduler import Scheduler

        self.bundle = bundle
        self.performer = performer
        self.scheduler = Scheduler(performer, max_sessions)
        self._prepared: Once[Portrait, Appearance] = Once()

    def register(self, picture: Picture, face: FaceChoice = 0, max_size: int = 1920) -> Portrait:
        """Find a face in a picture and measure what is needed to animate it. Takes under a second.

        Args:
            picture: a path, the bytes of an image file, a file opened for bytes, a PIL image, or an array (H, W),
                (H, W, 3) or (H, W, 4).
            face: which face: its number, largest first; a box (left, top, width, height) around it, in pixels of the
                picture as it is in the file; or a picture of that face, cut from this one.
            max_size: the longest side of the picture (and so of the frames) in pixels; a larger picture is reduced, or
                cropped to that size around a face that would become too small.

        Raises:
            ImageError: the picture cannot be read.
            NoFaceError: no usable face, none like `face`, or mouth, chin or an eye of the face lies outside of the picture.
        """
        return register(picture, face=face, max_size=max_size)

    def register_faces(
        self, picture: Picture, faces: Sequence[FaceChoice] | None = None, max_size: int = 1920
    ) -> tuple[Portrait, ...]:
        """Several faces of one picture, for `animate_scene` and `scene`: portraits that share it.

        Args:
            picture, max_size: as of `register`.
            faces: which, each as of `register`; None: all that can be animated, largest first.

        Raises:
            ImageError, NoFaceError: as of `register`.
            ValueError: one face twice.
        """
        return register_faces(picture, faces, max_size)

    def cut_out(self, portrait: Portrait) -> Portrait:
        """The portrait with its person cut out of an opaque picture: it gets alpha, which moves with the head.

        See docs/outputs.md. Takes about two seconds. A portrait that has alpha already is given back as it is.

        Raises:
            ImageError: no person stands out in the picture.
        """
        return cut_out(portrait)

    def appearance(self, portrait: Portrait) -> Appearance:
        """The portrait as the performer prepares it, on first use; kept as long as the portrait lives.

        Threads that ask for the same portrait wait while one of them prepares it.

        Raises:
            TypeError: not a `Portrait`.
        """
        return self._prepared.get(check_portrait(portrait), self.performer.prepare)

    def pack(self, portrait: Portrait, path: str | os.PathLike[str] | None = None, *, lossless: bool = False) -> bytes:
        """The portrait and its appearance as one small file (docs/packed.md), about 250 kB; takes about a second.

        `Portrait.load` reads it, and the first stream of such a portrait begins without preparation. The core of a browser
        draws from it with `model_pack`.

        Args:
            path: where to write it as well; it appears under its name when complete.
            lossless: pictures bit for bit as they are; otherwise as JPEG, which makes the file a third as large.

        Raises:
            InputError: the bundle does not draw with the core; the packed portrait that it comes from is damaged.
            OutputError: the file cannot be written there.
            TypeError: not a `Portrait`.
        """
        data = self._core_renderer().pack(check_portrait(portrait), lossless)
        if path is not None:
            write_file(path, data)
        return data

    def model_pack(self) -> bytes:
        """What the core needs beside a packed portrait, the same for all portraits of the bundle (docs/packed.md).

        Raises:
            InputError: the bundle does not draw with the core.
        """
        return self._core_renderer().model_pack

    def _core_renderer(self) -> CoreRenderer:
        from ditto.lite.rendering.core import CoreRenderer

        renderer = getattr(self.performer, "renderer", None)
        if not isinstance(renderer, CoreRenderer):
            raise InputError(
                f"expected a bundle that draws with the core, as lite does, got {self.bundle.name!r}; save its portraits with "
                "Portrait.save"
            )
        return renderer

    def stream(
        self,
        portrait: Portrait,
        *,
        seed: int = 0,
        emotion: Mapping[str, float] | None = None,
        still: bool = False,
        controls: Edit | None = None,
        latency: str = "quality",
        style: str | float = "natural",
        performance: Performance | None = None,
        output: str = "rgb24",
    ) -> Stream:
        """A new stream: push samples (mono, 16 kHz), get frames.

        Args:
            seed: all randomness of the stream; the same seed and samples give the same frames bit for bit.
            emotion: weights by name (see `ditto.motion.emotion.EMOTIONS`), e.g. {"happy": 0.6}.
            still: keep the head where it is in the portrait; only the face moves.
            controls: edits of every frame: `Controls`, a `Timeline`, or a function of the frame's index that gives `Controls`.
            latency: one of `performer.latencies`, "quality" by default: how much of the speech after a frame it
                waits for.
            style: how much head and brows move: "calm", "natural", "lively", or a factor from 0 to 2 on "natural".
            performance: a recorded motion that drives regions of the face; speech moves the rest.
            output: pixel format of the frames: "rgb24", "bgr24", "rgba", "rgba_stacked", "rgb24_green" or "yuv420p"
                (docs/outputs.md). Alpha is that of the portrait's picture, and moves with it.

        Raises:
            ValueError, TypeError: a value that an option cannot have, or an option that the bundle does not support.
        """
        return Stream(
            self,
            portrait,
            seed=seed,
            emotion=emotion,
            still=still,
            controls=controls,
            latency=latency,
            style=style,
            performance=performance,
            output=output,
        )

    def session(self, portrait: Portrait, **options: Unpack[SessionOptions]) -> AsyncSession:
        """A live session for asyncio, with idle motion between utterances: `async with head.session(portrait) as s`.

        Args:
            options: see `ditto.live.SessionOptions`.

        Raises:
            ValueError, TypeError: an unknown option, or a value that it cannot have.
            InputError: the label does not fit into the pictures.
        """
        from ditto.live import AsyncSession

        settings = _settings(portrait, options)
        return AsyncSession(self.scheduler, portrait, partial(self.appearance, portrait), settings)

    def scene(self, portraits: Sequence[Portrait], **options: Unpack[SessionOptions]) -> AsyncScene:
        """A live session of several faces of one picture: `async with head.scene(portraits) as scene`. Who is silent listens.

        It takes a session of the head for each face.

        Args:
            portraits: from `register_faces`.
            options: of every face, see `ditto.live.SessionOptions`; `idle` is always on.

        Raises:
            ValueError, TypeError: an unknown option, a value that it cannot have, or portraits of different pictures.
        """
        from ditto.live.scene import AsyncScene
        from ditto.scene import check_speakers, seed_of

        check_speakers(portraits)
        output, label = options.get("output", "rgb24"), options.get("label")
        each = options | {"idle": True, "output": "rgb24", "label": None}
        if label is not None:
            label.check(*portraits[0].picture.shape[:2])
        sessions = [
            self.session(portrait, **(each | {"seed": seed_of(options.get("seed", 0), number)}))
            for number, portrait in enumerate(portraits)
        ]
        return AsyncScene(portraits, sessions, output, label)

    def blocking_session(self, portrait: Portrait, **options: Unpack[SessionOptions]) -> Session:
        """`session` for threads: `with head.blocking_session(portrait) as s`.

        Raises:
            ValueError, TypeError, InputError: as of `session`.
            BusyError: `scheduler.max_sessions` are open, or the machine holds no more.
            TooSlowError: this machine draws too few frames a second (see `any_speed`).
        """
        from ditto.live import Session

        settings = _settings(portrait, options)
        return Session(self.scheduler, portrait, partial(self.appearance, portrait), settings)

    def animate(
        self,
        portrait: Portrait,
        audio: Readable | Samples | Iterable[Samples],
        *,
        seed: int = 0,
        emotion: Mapping[str, float] | None = None,
        still: bool = False,
        controls: Edit | None = None,
        style: str | float = "natural",
        performance: Performance | None = None,
        output: str = "rgb24",
    ) -> Iterator[Frame]:
        """The frames of a recording, one by one, in constant memory.

        Args:
            audio: a file with a sound track, given as a path, as bytes or as an open file; an `AudioReader`; samples (N,),
                mono at 16 kHz; or an iterable of such blocks.
            seed, emotion, still, controls, style, performance, output: as of `stream`.

        Raises:
            AudioError: the audio cannot be read (raised at once), or is empty or damaged (raised by the iteration).
            ValueError: as of `stream`; or the audio never shows something of the timeline (`Timeline.outside`).
            TypeError: audio of another kind.
        """
        blocks = _blocks(audio)
        check_timeline(controls, seconds_of(audio, blocks))
        stream = self.stream(
            portrait, seed=seed, emotion=emotion, still=still, controls=controls, style=style, performance=performance,
            output=output,
        )  # fmt: skip
        return _frames(stream, blocks)

    def animate_scene(self, speakers: Sequence[Speaker], *, seed: int = 0) -> Iterator[Frame]:
        """The frames of several faces of one picture, each with its own recording, one by one.

        All recordings run at the same time. A face whose recording is silent for a while shows idle motion and reacts to the
        voices of the others. The frames carry the sum of the sound and no motion. The recordings are held in memory, 4 MB a
        minute each.

        Args:
            speakers: the faces and their recordings.
            seed: of all randomness; the same seed and recordings give the same frames bit for bit.

        Raises:
            AudioError: a recording cannot be read, or there is none.
            ValueError: speakers of different pictures, two for one face, or an option that the bundle does not support.
        """
        from ditto.scene import animate_scene

        appearances = [self.appearance(speaker.portrait) for speaker in speakers]
        return animate_scene(self.performer, appearances, speakers, seed)

    def read_video(
        self, path: str | os.PathLike[str], report: Callable[[int], None] = lambda frames: None
    ) -> Clip:
        """A clip of a person as a source for `animate_video`: its face is followed through all frames, 70 a second or so.

        Args:
            report: called with the number of frames followed so far.

        Raises:
            UnsupportedError: the bundle animates pictures alone.
            VideoError: the video cannot be decoded, is too short, or changes its size.
            NoFaceError: no frame shows a face that is large enough.
        """
        from ditto.clip import read_clip

        self._check_clips()
        return read_clip(path, report)

    def animate_video(
        self,
        clip: Clip,
        audio: Readable | Samples | Iterable[Samples],
        *,
        loop: str = "pingpong",
        whole_face: bool = False,
        seed: int = 0,
        emotion: Mapping[str, float] | None = None,
        controls: Edit | None = None,
        style: str | float = "natural",
    ) -> Iterator[Frame]:
        """The frames of a clip whose person says a recording, as long as the recording, one by one.

        Head, eyes, body and background are those of the clip. Memory does not grow with either.

        Args:
            clip: from `read_video`.
            audio, seed, emotion, controls, style: as of `animate`. Edits show where the speech rules the face.
            loop: how a clip that is shorter than the recording goes on: "pingpong", "mirror", "forward", "once", as of
                `ditto.clip.order_of`.
            whole_face: whether brows and head move with the speech too, on top of the clip's own motion.

        Raises:
            ValueError, TypeError, AudioError: as of `animate`; another loop.
            UnsupportedError: the bundle animates pictures alone.
            VideoError: raised by the iteration: the file has changed since it was read.
        """
        self._check_clips()
        open_clip: OpenClip = importlib.import_module(CLIPS[self.bundle.motion_space]).open_clip
        mover, draw = open_clip(self.performer, clip, loop, whole_face)
        return draw(
            TalkingHead(self.bundle, mover).animate(
                clip.portrait, audio, seed=seed, emotion=emotion, controls=controls, style=style
            )
        )

    def _check_clips(self) -> None:
        """Raise UnsupportedError if the bundle cannot animate the person of a video."""
        if self.bundle.motion_space not in CLIPS:
            raise UnsupportedError(
                f"expected a bundle that animates videos, {' or '.join(CLIPS)}, got {self.bundle.name!r}, which animates "
                "pictures alone; take another bundle, or give a picture"
            )

    def take(
        self,
        portrait: Portrait,
        audio: Readable | Samples | Iterable[Samples],
        *,
        seed: int = 0,
        emotion: Mapping[str, float] | None = None,
        still: bool = False,
        controls: Controls | Timeline | None = None,
        style: str | float = "natural",
    ) -> Take:
        """The motion of a recording as a take, which can be edited, saved and rendered again. No picture is drawn.

        `render` gives the frames that `animate` gives with the same arguments, bit for bit.

        Args:
            audio: as of `animate`.
            seed, emotion, still, controls, style: as of `stream`; a function cannot be kept.

        Raises:
            AudioError, ValueError, TypeError: as of `animate`.
        """
        from ditto.take import record, timeline_from

        timeline = timeline_from(controls)
        edits = FrameEdits(emotion_vector(emotion), style_strength(style), still, timeline)
        blocks = _blocks(audio)
        check_timeline(timeline, seconds_of(audio, blocks))
        path = getattr(blocks, "path", None)
        return record(
            self.performer,
            self.appearance(portrait),
            self.bundle.id,
            blocks,
            edits,
            check_seed(seed),
            None if path is None else os.path.abspath(path),
        )

    def render(
        self,
        portrait: Portrait,
        take: Take,
        *,
        audio: Readable | Samples | Sequence[Readable | Samples] | None = None,
        performance: Performance | None = None,
        output: str = "rgb24",
    ) -> Iterator[Frame]:
        """The frames of a take, one by one. Nothing is generated; rendering twice gives the same bits.

        Args:
            audio: the recording, where the file that the take names is not there any more, or where samples were given;
                several for a take of several recordings.
            performance: as of `stream`, from the beginning of the take.
            output: as of `stream`.

        Raises:
            TakeError: the take comes from another bundle.
            ValueError: an unknown output.
            AudioError: a recording is not there any more, has changed, or is not among those given.
        """
        from ditto.take import TakeSound, frames_of

        take.check_bundle(self.bundle.id)
        sound = TakeSound(take, audio)
        driving = check_performance(performance)
        return frames_of(
            self.performer, portrait, self.appearance(portrait), take, sound.blocks(), driving, check_pixels(output)
        )

    def motion(self, portrait: Portrait, take: Take) -> Motion:
        """The motion (N, 70) of the frames that `render` gives, edits included; without drawing them.

        Raises:
            TakeError: the take comes from another bundle.
        """
        from ditto.take import motion_of

        take.check_bundle(self.bundle.id)
        return motion_of(self.performer, portrait, self.appearance(portrait), take)


def check_portrait(portrait: Portrait) -> Portrait:
    """The portrait; raises TypeError if it is something else."""
    if not isinstance(portrait, Portrait):
        raise TypeError(
            f"expected a Portrait, got {type(portrait).__name__}; make one with register(picture), or load one with "
            "Portrait.load(path)"
        )
    return portrait


def _settings(portrait: Portrait, options: SessionOptions) -> Settings:
    """The options of a session with a portrait, checked."""
    from ditto.live.settings import Settings

    settings = Settings(**options)
    height, width = check_portrait(portrait).picture.shape[:2]
    if settings.label is not None:
        settings.label.check(height, width)
    return settings


def _blocks(audio: Readable | Samples | Iterable[Samples]) -> Iterable[Samples]:
    if isinstance(audio, memoryview) and audio.format not in ("B", "b", "c"):
        audio = np.asarray(audio)
    if is_readable(audio):
        from ditto.media.audio import AudioReader

        return AudioReader(audio)
    if isinstance(audio, np.ndarray) and audio.ndim > 0:
        step = HOP_SAMPLES if audio.ndim == 1 else max(1, len(audio))
        return (audio[start : start + step] for start in range(0, len(audio), step))
    if isinstance(audio, np.ndarray) or not isinstance(audio, Iterable):
        raise TypeError(
            "expected a path, the bytes of a sound file, an open file, samples (N,) or an iterable of such blocks as audio, "
            f"got {type(audio).__name__}; give one of these"
        )
    return audio


def seconds_of(audio: object, blocks: Iterable[Samples]) -> float | None:
    """The length of a recording in seconds; None if that is not known before it is read."""
    if isinstance(audio, np.ndarray):
        return len(audio) / SAMPLE_RATE
    declared = getattr(blocks, "duration_seconds", None)
    return declared if isinstance(declared, float) else None


def check_timeline(controls: Edit | None, seconds: float | None) -> None:
    """Raise ValueError if a recording never shows something of a timeline; `seconds` is None if its length is not known."""
    from ditto.controls.timeline import Timeline

    if isinstance(controls, Timeline):
        controls.check_within(math.inf if seconds is None else seconds)


def _frames(stream: Stream, blocks: Iterable[Samples]) -> Iterator[Frame]:
    for block in blocks:
        yield from stream.push(block)
    yield from stream.flush()
    if stream.frames == 0:
        raise AudioError("expected at least one sample of audio, got none; give a recording with sound in it")


def load(
    bundle: str | Path = "lite",
    max_sessions: int | None = None,
    *,
    device: str = "cpu",
    precision: str = "float32",
    settings: Literal["offline", "online"] | None = None,
    changes: ReleasedSettings | None = None,
) -> TalkingHead:
    """Load a bundle of weights, by name or folder. Compares every file with its SHA-256.

    Args:
        max_sessions: how many live sessions may be open at once; by default as many as the machine holds, by what they are
            measured to cost (docs/streaming.md). On another device than the CPU: one a processor core.
        device: where the networks of a full bundle run: "cpu", "cuda", "cuda:1". The lite bundle runs on the CPU.
        precision: of a full bundle's image networks: "float32", "bfloat16", "float16" (GPU).
        settings: "offline" or "online": the settings published with the checkpoints of a full bundle; None: the defaults here.
        changes: released settings by name, in place of those or of the defaults here: `{"fade_type": "s", "fade_out": 10}`
            (`ditto.full.released.ReleasedSettings`, docs/full.md).

    Raises:
        InputError: a device, a precision or settings for a bundle without that choice; a setting that is unknown or out of
            its range.
        NoBundleError: no such bundle.
        BundleError: the bundle is damaged, or of a kind that this version does not know.
        EngineError: a network of it cannot be run on this machine.
    """
    from ditto.bundle import Bundle

    opened = Bundle.open(bundle)
    if opened.motion_space not in PERFORMERS or (opened.fps, opened.sample_rate) != (FPS, SAMPLE_RATE):
        raise BundleError(
            f"expected a bundle of motion space {' or '.join(map(repr, PERFORMERS))}, {FPS} frames and {SAMPLE_RATE} samples "
            f"a second, got {opened.motion_space!r}, {opened.fps} and {opened.sample_rate} in {opened.path}; use another "
            "version of ditto or another bundle"
        )
    module = importlib.import_module(PERFORMERS[opened.motion_space])
    open_performer: Callable[..., Performer] = module.open_performer
    how = {name: value for name, value in (("settings", settings), ("changes", changes)) if value}
    if how and opened.motion_space != "full":
        raise InputError(
            f"expected a full bundle with {' and '.join(how)}, got the bundle {opened.name!r}; leave them out, or load a "
            "full bundle"
        )
    if max_sessions is None and device != "cpu":
        max_sessions = cores()
    return TalkingHead(opened, open_performer(opened, device, precision, **how), max_sessions)
