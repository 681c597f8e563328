"""How near to real video: each reference's first frame said with its own sound, and measured beside the reference itself.

    python -m benchmarks.quality VIDEOS_OR_FOLDERS ... [--bundle A --bundle B] [--style natural] [--latency quality]
    python -m benchmarks.quality VIDEOS --face-recognition FACE.onnx --features IMAGE.onnx --video-features CLIP.onnx --lpips

Every figure is a mean over the references with its 95 % confidence interval (bootstrap over references); the real column is
the same measure on the references. What each is: docs/quality.md. Nothing of a reference is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measures, theval
from benchmarks._motions import rows_of, said, style_option
from benchmarks._report import number, publish, rows_table
from benchmarks.faces import face_window, track
from benchmarks.natural import SOUND_LATE_FRAMES, Mouth, in_time, phones_of
from benchmarks.pictures import ImageQuality, Lpips, Network, aligned_face, cosine, frechet_distance
from benchmarks.speech import Samples
from ditto.commands import Arguments, real_number, run, whole_number
from ditto.errors import InputError, NoFaceError, VideoError
from ditto.lite.phones import BILABIALS
from ditto.media.audio import AudioReader
from ditto.media.files import ffmpeg_name
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.motion import euler_degrees
from ditto.performer import check_latency
from ditto.portrait.face_mesh import fit_head
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead, load
from ditto.training.motion_data import EYE_CORNERS, IRIS_CENTRES, fill_gaps

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]
Values = dict[str, float]  # of one clip, by measure; NaN where it says nothing about it

SUFFIXES = {".mp4", ".mov", ".mkv", ".mpg", ".avi", ".webm", ".m4v"}
SOUND_LATE = {"natural_talk": SOUND_LATE_FRAMES}  # frames, by the name of the folder: known of the project's own data
SEARCHED_FRAMES = 25  # a portrait is looked for among so many first frames
ANGLES = ("pitch", "yaw", "roll")
BANDS = ((0.15, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))  # Hz
PAUSES = ((1, 3), (4, 9), (10, 19), (20, 10**9))  # lengths in frames
BLINK = 0.5  # of the usual lid opening: below it an eye blinks
LONGEST_BLINK = FPS  # frames; an eye that is shut for longer does not blink
WHOLE_STEP = 5  # frames from one to the next of which whole pictures are looked at
RESAMPLES = 2000  # of the bootstrap
THEVAL = {"lip_dynamics": "lip dynamics", "eyebrows": "eyebrows", "silent_lips": "silent lips", "lip_sync": "lip sync"}


class Keep(NamedTuple):
    """Which pictures of a clip are needed: those around the face, and whole frames."""

    pictures: bool
    whole: bool


class Clip(NamedTuple):
    """A talking face of T frames, 25 a second.

    Attributes:
        landmarks: (T, 478, 3) px, no NaN.
        size: width and height of its frames.
        pictures: the window around the face in each frame, if pictures were asked for.
        whole: every `WHOLE_STEP`-th whole frame, if these were.
    """

    landmarks: Floats
    size: tuple[int, int]
    pictures: list[Image]
    whole: list[Image]

    @classmethod
    def of(cls, frames: Sequence[Image], landmarks: Floats, portrait: Portrait, keep: Keep) -> Clip:
        """Of frames and landmarks at 25 frames a second."""
        window = face_window(portrait)
        pictures = [frame[window].copy() for frame in frames] if keep.pictures else []
        size = (frames[0].shape[1], frames[0].shape[0])
        return cls(landmarks, size, pictures, [*frames[::WHOLE_STEP]] if keep.whole else [])


class Reference(NamedTuple):
    """A real clip: its name, the portrait made of its first usable frame, sound (640 T,), the phones heard in it (T, 40), and
    frames in which somebody speaks (T,)."""

    name: str
    portrait: Portrait
    clip: Clip
    samples: Samples
    phones: Floats
    speaking: npt.NDArray[np.bool_]


# Reading


def videos_in(places: Sequence[Path]) -> list[Path]:
    """The videos given, and those of the folders given.

    Raises:
        InputError: a place that is neither, or no video in all of them.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            found += sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES)
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(
                f"expected a video or a folder of videos, got {place}, which does not exist; give another path"
            )
    if not found:
        raise InputError(f"expected at least one video, got none in {', '.join(map(str, places))}; give another folder")
    return found


def frames_of(path: Path, seconds: float) -> tuple[list[Image], float]:
    """The first frames (H, W, 3) RGB of a video, and how many there are a second.

    Raises:
        VideoError: it cannot be read, or has no pictures.
    """
    import av

    frames: list[Image] = []
    try:
        with av.open(ffmpeg_name(path)) as container:
            stream = container.streams.video[0]
            fps = float(stream.average_rate or FPS)
            for frame in container.decode(stream):
                if len(frames) >= seconds * fps:
                    break
                frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    except (av.FFmpegError, IndexError) as error:
        raise VideoError(f"expected a video, got {path.name}: {error}; give another file") from error
    if len(frames) < 2:
        raise VideoError(f"expected a video of at least 2 frames, got {len(frames)} in {path.name}; give another file")
    return frames, fps


def sound_of(path: Path, seconds: float) -> Samples:
    """The beginning of the sound of a video, (N,) mono at 16 kHz.

    Raises:
        AudioError: it has none.
    """
    blocks, samples, enough = [], 0, round(seconds * SAMPLE_RATE)
    for block in AudioReader(path):
        blocks.append(block)
        samples += len(block)
        if samples >= enough:
            break
    return np.concatenate(blocks)[:enough].astype(np.float32)


def portrait_of(head: TalkingHead, frames: Sequence[Image]) -> Portrait:
    """The portrait of the first usable frame.

    Raises:
        NoFaceError: none of the first `SEARCHED_FRAMES` is usable.
    """
    for frame in frames[:SEARCHED_FRAMES]:
        try:
            return head.register(frame, max_size=max(frame.shape))
        except NoFaceError as error:
            reason = error
    raise NoFaceError(
        f"expected a usable face in the first {SEARCHED_FRAMES} frames, got none ({reason}); give another video"
    )


def read_reference(
    path: Path, head: TalkingHead, encoder: Any, seconds: float, late_frames: float, keep: Keep
) -> Reference:
    """A reference, tracked, at 25 frames a second, its sound in time.

    Raises:
        InputError: it cannot be read, shows no usable face, or has no sound.
    """
    frames, fps = frames_of(path, seconds)
    portrait = portrait_of(head, frames)
    sound = sound_of(path, seconds + late_frames / fps)
    try:
        tracked = fill_gaps(track(frames))
    except ValueError as error:
        raise VideoError(
            f"expected a face in nearly every frame, got {path.name}: {error}; give another video"
        ) from error
    landmarks, samples = in_time(tracked, sound, fps, late_frames)
    if len(landmarks) < FPS:
        got = f"{len(landmarks) / FPS:.2f} s in {path.name}"
        raise VideoError(f"expected a second of pictures with sound, got {got}; give another video")
    at_25 = [frames[min(int((i + 0.5) * fps / FPS), len(frames) - 1)] for i in range(len(landmarks))]
    clip = Clip.of(at_25, landmarks, portrait, keep)
    phones = phones_of(encoder, samples)[: len(landmarks)]
    return Reference(path.stem, portrait, clip, samples, phones, theval.speech(samples, len(landmarks)))


def say(head: TalkingHead, reference: Reference, keep: Keep, **stream: Any) -> Clip:
    """The reference's portrait, saying its sound.

    Raises:
        VideoError: the face is lost in a fifth of the frames or more.
    """
    frames = [frame.image for frame in said(head.stream(reference.portrait, **stream), reference.samples)]
    window = face_window(reference.portrait)
    corner = np.array([window[1].start, window[0].start, 0.0])
    try:
        landmarks = fill_gaps(track([frame[window] for frame in frames]) + corner)
    except ValueError as error:
        raise VideoError(f"expected a face in nearly every rendered frame of {reference.name}, got {error}") from error
    return Clip.of(frames, landmarks, reference.portrait, keep)


# Measuring


def clip_values(clip: Clip, reference: Reference) -> Values:
    """Every measure of a clip beside the reference that it should be like."""
    frames = min(len(clip.landmarks), len(reference.clip.landmarks), len(reference.phones))
    landmarks, phones = clip.landmarks[:frames], reference.phones[:frames]
    samples, speaking = reference.samples[: frames * SAMPLES_PER_FRAME], reference.speaking[:frames]
    heads = [fit_head(frame) for frame in landmarks]
    face = np.stack([head[3] for head in heads])
    degrees = np.degrees(np.unwrap(np.radians(euler_degrees(np.stack([head[1] for head in heads]))), axis=0))
    theval_values = theval.scores(landmarks, clip.size, samples, speaking)
    return {
        **lip_values(Mouth.seen(landmarks), Mouth.seen(reference.clip.landmarks[:frames]), phones),
        **eye_values(measures.lid_opening(landmarks), gaze(face)),
        **head_values(degrees),
        "jitter, .001 fw": jitter(face),
        **{f"THEval {name}": float(getattr(theval_values, field)) for field, name in THEVAL.items()},
    }


def lip_values(mouth: Mouth, real: Mouth, phones: Floats) -> Values:
    opening, width = measures.correlate(mouth.opening, real.opening), measures.correlate(mouth.width, real.width)
    closed = measures.in_range(mouth.opening) < measures.CLOSED
    bilabial = phones[:, BILABIALS].sum(1) > measures.HEARD
    near = [closed[max(0, run.start - 1) : run.stop + 1].any() for run in measures.runs(bilabial)]
    values = {
        "lip opening, r": opening.best,
        "lip opening, lag in frames": float(opening.lag),
        "mouth width, r": width.best,
        "mouth width, lag in frames": float(width.lag),
        "p b m: frames closed": measures.share(closed[bilabial]),
        "p b m: sounds with a closure": measures.share(near),
        "frames closed (gap under .01 fw)": measures.share(mouth.opening < measures.CLOSED_GAP),
        "lip opening, mean, fw": float(mouth.opening.mean()),
        "lip opening, std, fw": float(mouth.opening.std()),
        "mouth width, std, fw": float(mouth.width.std()),
    }
    z = measures.z_scores(mouth.opening)
    inside = measures.pauses_inside(phones)
    for low, high in PAUSES:
        parts = [float(z[pause].mean()) for pause in inside if low <= pause.stop - pause.start <= high]
        name = f"{low}-{high}" if high < 10**9 else f"{low}+"
        values[f"opening in pauses of {name} frames, z"] = float(np.mean(parts)) if parts else float("nan")
    return values


def eye_values(lids: Floats, eyes: Floats) -> Values:
    """Lid opening (T,) and gaze (T, 2)."""
    shut = lids < BLINK * np.percentile(lids, 70)
    lengths = [run.stop - run.start for run in measures.runs(shut) if run.stop - run.start <= LONGEST_BLINK]
    horizontal, vertical = eyes[~shut].std(0) if (~shut).any() else (np.nan, np.nan)
    return {
        "blinks a minute": 60.0 * FPS * len(lengths) / len(lids),
        "blink, ms": 1000.0 / FPS * float(np.mean(lengths)) if lengths else float("nan"),
        "gaze, horizontal std, .001 fw": 1000.0 * float(horizontal),
        "gaze, vertical std, .001 fw": 1000.0 * float(vertical),
    }


def gaze(face: Floats) -> Floats:
    """Irises against the corners of their eyes, mean of both eyes: (T, 478, 3) in the head frame -> (T, 2) fw."""
    shifts = [face[:, i] - face[:, list(c)].mean(1) for i, c in zip(IRIS_CENTRES, EYE_CORNERS, strict=True)]
    return np.asarray(np.mean(shifts, axis=0)[:, :2])


def head_values(degrees: Floats) -> Values:
    """Angles (T, 3)."""
    speed, values = measures.speed(degrees), {}
    for axis, angle in enumerate(ANGLES):
        values[f"{angle}: std"] = float(degrees[:, axis].std())
        values[f"{angle}: median speed, a second"] = float(np.median(speed[:, axis]))
        for low, high in BANDS:
            enough = len(degrees) / FPS * low >= 1.0  # a whole period
            rms = float(measures.band_rms(degrees[:, axis], low, high)) if enough else float("nan")
            values[f"{angle}: RMS {low:g}-{high:g} Hz"] = rms
    return values


def jitter(face: Floats) -> float:
    """Mean second difference of the landmarks that no expression moves, pose taken out: (T, 478, 3) -> .001 fw."""
    second = np.diff(face[:, measures.IDENTITY, :2], 2, axis=0)
    return 1000.0 * float(np.linalg.norm(second, axis=-1).mean())


class Interval(NamedTuple):
    """A figure and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "-"
        if np.isnan(self.low):
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


def bootstrap(statistic: Callable[..., npt.NDArray[Any]], *values: Sequence[float], seed: int = 0) -> Interval:
    """A statistic of curves of one number a clip (along the last axis), over the clips in which none of them is NaN.

    The clips are drawn anew with replacement `RESAMPLES` times (percentile bootstrap: Efron and Tibshirani 1993, chapter
    13). The interval of fewer than 3 clips is NaN.
    """
    table = np.array(values, np.float64)
    table = table[:, np.isfinite(table).all(0)]
    clips, nothing = table.shape[1], float("nan")
    if clips == 0:
        return Interval(nothing, nothing, nothing)
    value = float(statistic(*table))
    if clips < 3 or np.isnan(value):
        return Interval(value, nothing, nothing)
    drawn = np.random.default_rng(seed).integers(0, clips, (RESAMPLES, clips))
    low, high = np.nanpercentile(statistic(*table[:, drawn]), [2.5, 97.5])
    return Interval(value, float(low), float(high))


def mean(values: Floats) -> Floats:
    return np.asarray(values.mean(-1))


def difference(a: Floats, b: Floats) -> Floats:
    return np.asarray((b - a).mean(-1))


def theval_score(values: Floats, real: Floats) -> Floats:
    return theval.score(values.mean(-1), real.mean(-1))


class Figures(NamedTuple):
    """One measure: on the references, with each bundle, and how much more the last bundle has than the first."""

    name: str
    real: Interval
    bundles: list[Interval]
    more: Interval | None


def compared(values: Mapping[str, Sequence[Values]]) -> list[Figures]:
    """Of "real" and each bundle, values of the same clips in the same order."""
    own = [name for name in values if name != "real"]
    figures = []

    def column(who: str, measure: str) -> list[float]:
        return [clip[measure] for clip in values[who]]

    for measure in values["real"][0]:
        more = None
        if len(own) > 1:
            more = bootstrap(difference, column(own[0], measure), column(own[-1], measure))
        intervals = [bootstrap(mean, column(name, measure)) for name in own]
        figures.append(Figures(measure, bootstrap(mean, column("real", measure)), intervals, more))
    for measure in [name for name in values["real"][0] if name.startswith("THEval")]:
        real = column("real", measure)
        scores = [bootstrap(theval_score, column(name, measure), real) for name in own]
        figures.append(Figures(f"{measure}: score", bootstrap(theval_score, real, real), scores, None))
    return figures


# Pictures


class Eyes(NamedTuple):
    """The networks to look at pictures with; None where none was given."""

    recognition: Network | None
    features: Network | None
    clips: Network | None
    lpips: Lpips | None
    quality: ImageQuality | None

    @property
    def keep(self) -> Keep:
        return Keep(any(network is not None for network in self[:4]), self.quality is not None)


def picture_values(clip: Clip, reference: Reference, eyes: Eyes, corner: Floats) -> Values:
    """Identity against the reference's first frame, and distance frame by frame."""
    values: Values = {}
    real = reference.clip
    frames = min(len(clip.pictures), len(real.pictures))
    if eyes.recognition is not None:
        faces = [aligned_face(p, points - corner) for p, points in zip(clip.pictures, clip.landmarks, strict=False)]
        first = aligned_face(real.pictures[0], real.landmarks[0] - corner)
        seen = eyes.recognition([first, *faces[1:]])
        values["CSIM with the first frame"] = float(cosine(seen[1:], seen[:1]).mean())
    if eyes.lpips is not None:
        steps = range(0, frames, 5)
        values["LPIPS frame by frame"] = float(np.mean([eyes.lpips(clip.pictures[i], real.pictures[i]) for i in steps]))
    if eyes.quality is not None:
        seen_quality = eyes.quality(clip.whole, clip.landmarks[::WHOLE_STEP][: len(clip.whole)])
        values |= {f"THEval {name}": value for name, value in zip(eyes.quality.names, seen_quality, strict=True)}
    return values


def clip_windows(clips: Sequence[Clip], length: int) -> Iterator[list[Image]]:
    """Stretches of `length` frames, one after the other."""
    for clip in clips:
        for start in range(0, len(clip.pictures) - length + 1, length):
            yield clip.pictures[start : start + length]


def distances(clips: Mapping[str, Sequence[Clip]], eyes: Eyes) -> list[list[Any]]:
    """Rows of Fréchet distances to the references; the real column holds that of one half of their frames to the other."""
    rows: list[list[Any]] = []
    kinds: list[tuple[str, Callable[[Sequence[Clip]], Floats]]] = []
    if eyes.features is not None:
        network = eyes.features
        kinds.append(("FID", lambda of: np.concatenate([network(clip.pictures) for clip in of])))
    if eyes.clips is not None:
        films = eyes.clips

        def of_films(of: Sequence[Clip]) -> Floats:
            seen = [films(part) for part in clip_windows(of, films.shape[0])]
            return np.concatenate(seen) if seen else np.zeros((0, 1))

        kinds.append(("FVD", of_films))
    for name, see in kinds:
        real = see(clips["real"])
        row: list[Any] = [f"{name}, {len(real)} each"]
        for who, own in clips.items():
            a, b = (real[::2], real[1::2]) if who == "real" else (see(own), real)
            row.append(frechet_distance(a, b) if min(len(a), len(b)) > 1 else float("nan"))
        rows.append(row)
    return rows


def networks(options: argparse.Namespace) -> Eyes:
    """Those given.

    Raises:
        InputError: one of them cannot be used.
    """
    return Eyes(
        Network(options.face_recognition, 4) if options.face_recognition else None,
        Network(options.features, 4) if options.features else None,
        Network(options.video_features, 5) if options.video_features else None,
        Lpips() if options.lpips else None,
        ImageQuality() if options.pyiqa else None,
    )


# The command


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.quality", description=__doc__.split("\n")[0])
    parser.add_argument("videos", type=Path, nargs="+", help="videos of one talking face each, or folders of them")
    parser.add_argument("--bundle", action="append", help="weights; give it twice to compare two (lite by default)")
    parser.add_argument("--latency", default="quality")
    parser.add_argument("--style", help="of the streams: a name or a number")
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    parser.add_argument(
        "--seconds", type=real_number(1, 86_400), default=20.0, help="how much of each video, from its beginning"
    )
    parser.add_argument(
        "--sound-late", type=real_number(-1000, 1000), default=0.0, help="frames by which the sound of the videos is late"
    )
    parser.add_argument("--face-recognition", type=Path, help="an ONNX network for identity (CSIM): faces of 112 x 112")
    parser.add_argument("--features", type=Path, help="an ONNX network for FID: pictures (1, 3, H, W)")
    parser.add_argument("--video-features", type=Path, help="an ONNX network for FVD: clips (1, 3, T, H, W)")
    parser.add_argument("--lpips", action="store_true", help="perceptual distance (package lpips)")
    parser.add_argument("--pyiqa", action="store_true", help="THEval's measures of pictures (package pyiqa)")
    options = parser.parse_args(arguments)
    try:
        compare(options)
    except (ValueError, InputError) as error:
        parser.error(str(error))


def compare(options: argparse.Namespace) -> None:
    videos, eyes = videos_in(options.videos), networks(options)
    heads: dict[str, TalkingHead] = {}
    for name in options.bundle or ["lite"]:
        if name in heads or name == "real":
            raise InputError(f"expected bundles of different names, got {name!r} again; give one by another path")
        head = load(name)
        check_latency(options.latency, head.performer.latencies)
        rows_of(head.performer)
        heads[name] = head
    stream = {"latency": options.latency, "seed": options.seed, **style_option(options.style)}
    first = next(iter(heads.values()))

    values: dict[str, list[Values]] = {who: [] for who in ("real", *heads)}
    shown: dict[str, list[Clip]] = {who: [] for who in values}
    left_out: list[list[str]] = []
    seconds = 0.0
    for path in videos:
        late = options.sound_late or SOUND_LATE.get(path.resolve().parent.name, 0)
        try:
            encoder = rows_of(first.performer).encoder
            reference = read_reference(path, first, encoder, options.seconds, late, eyes.keep)
            clips = {"real": reference.clip}
            clips |= {name: say(head, reference, eyes.keep, **stream) for name, head in heads.items()}
            rows, columns = face_window(reference.portrait)
            corner = np.array([columns.start, rows.start, 0.0])
            measured = {
                who: {**clip_values(clip, reference), **picture_values(clip, reference, eyes, corner)}
                for who, clip in clips.items()
            }
        except InputError as error:
            left_out.append([path.name, str(error)])
            continue
        for who, clip in clips.items():
            values[who].append(measured[who])
            shown[who].append(clip)
        seconds += len(reference.clip.landmarks) / FPS
    if not values["real"]:
        raise InputError(f"expected at least one usable video, got none: {left_out[0][1]}")
    report(options, values, distances(shown, eyes), left_out, seconds)


def report(
    options: argparse.Namespace,
    values: Mapping[str, Sequence[Values]],
    distance_rows: list[list[Any]],
    left_out: list[list[str]],
    seconds: float,
) -> None:
    names = [name for name in values if name != "real"]
    figures = compared(values)
    columns = ["mean [95 % interval]", "real", *names, *([f"{names[-1]} - {names[0]}"] if len(names) > 1 else [])]
    groups: dict[str, list[list[str]]] = {"Lips and eyes": [], "Head, degrees": [], "THEval": []}
    for figure in figures:
        group = "THEval" if figure.name.startswith("THEval") else "Lips and eyes"
        group = "Head, degrees" if figure.name.split(":")[0] in ANGLES else group
        more = [] if len(names) < 2 else [str(figure.more or "")]
        groups[group].append([figure.name, str(figure.real), *map(str, figure.bundles), *more])
    clips = len(values["real"])
    tables = [rows_table(f"{title}, {clips} clips, {seconds:.0f} s", columns, rows) for title, rows in groups.items()]
    if distance_rows:
        tables.append(
            rows_table("Distance of distributions to the references", ["", "real, halves", *names], distance_rows)
        )
    if left_out:
        tables.append(rows_table("Left out", ["video", "why"], left_out))
    found = {
        figure.name: {
            "real": list(figure.real),
            **{name: list(interval) for name, interval in zip(names, figure.bundles, strict=True)},
            **({"more": list(figure.more)} if figure.more else {}),
        }
        for figure in figures
    }
    publish(
        "quality",
        [],
        tables,
        measures=found,
        distances=distance_rows,
        clips=clips,
        seconds=seconds,
        left_out=left_out,
        latency=options.latency,
        style=options.style,
        seed=options.seed,
    )


if __name__ == "__main__":
    run(main)
