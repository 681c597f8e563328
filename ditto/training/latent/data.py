"""Clips of talking faces for the latent systems: pictures rendered by lite, with their exact motion, features and sound.

    python -m ditto.training.latent.data PORTRAITS SPEECH OUT --clips 55 [--edited 55] [--seconds 8] [--side 80]
        [--held-portrait NAME]

    OUT/clips/NAME.safetensors    one clip, see `Clip`
    OUT/clips.jsonl               one `ClipInfo` a line
    OUT/clips.json                written last: format, side, fingerprint

A square around the face, fixed for a portrait, is reduced to `side` pixels. The head stands still, as it does in the picture
that a latent bundle composes; the face moves. A rendering that was interrupted goes on.
Edited clips show what speech alone does not: eyes and faces as controls move them, and emotions. From them a generator
learns what motion means as its condition (`ditto train flow --motion`).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ditto.commands import Arguments, real_number, run, whole_number
from ditto.controls import CATALOG, Controls
from ditto.errors import DatasetError, DittoError, InputError
from ditto.latent.region import LARGEST_SIDE, cut_square, square_of
from ditto.media.audio import read_audio
from ditto.media.files import check_folder
from ditto.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import EMOTIONS
from ditto.portrait.face_mesh import smoothstep
from ditto.portrait.portrait import Portrait
from ditto.talking_head import TalkingHead, load
from ditto.training.dataset import SPLITS, read_json, read_lines, write_bytes, write_json
from ditto.training.prepare.clips import encoder_of, features_of
from ditto.values import from_json, is_same, is_whole

FORMAT = 2
PICTURE_SIZE = 640  # pixels that a portrait has at most
SIDE = 80  # pixels of the square around a face: the box of its landmarks has 61 of them
HELD_SPEECHES = 24  # the last ones of the sorted folder
# Of edited clips: the deviation of numbers of the catalog, of some together; about what users ask for, chosen by hand.
EDITED = {
    ("gaze.right",): 12.0, ("gaze.down",): 8.0,
    ("lids.right", "lids.left"): 0.3, ("mouthSmileLeft", "mouthSmileRight"): 0.4, ("browInnerUp",): 0.4, ("jawOpen",): 0.2,
}  # fmt: skip
EDITED_NAME = "edited_"  # how their names begin
EDIT_FRAMES = 30  # from one value of a number to the next
EDITED_SHARE = 0.4  # of the numbers, in a clip; of the edited clips that show an emotion

Pictures = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Clip(NamedTuple):
    """The arrays of one clip of T frames.

    Attributes:
        frames: (T, side, side, 3) uint8 RGB.
        source: (side, side, 3) uint8: the portrait in the same square.
        square: (3,) float64: centre x, y and half the side, in pixels of the portrait's picture.
        features: (T, 368) float16, of lite's streaming encoder on `sound`.
        motion: (T, 70) float32, as rendered.
        sound: (640 T,) int16 at 16 kHz.
    """

    frames: Pictures
    source: Pictures
    square: Floats
    features: npt.NDArray[np.float16]
    motion: npt.NDArray[np.float32]
    sound: npt.NDArray[np.int16]


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip beside its arrays.

    Attributes:
        name: of its file.
        portrait: file name of the portrait; of footage, the person or else the video.
        speech: file name of the sound; of footage, the video.
        seed: of the motion; of footage, 0.
        frames: T.
        split: "train" or "held".
        sha256: of its file.
    """

    name: str
    portrait: str
    speech: str
    seed: int
    frames: int
    split: str
    sha256: str

    @property
    def edited(self) -> bool:
        """Whether it shows more than its speech: controls and emotions, drawn from the seed."""
        return self.name.startswith(EDITED_NAME)


@dataclass(frozen=True)
class Clips:
    """A folder of clips.

    Attributes:
        folder: where it lies.
        side: of the pictures.
        clips: in the order in which they were rendered.
    """

    folder: Path
    side: int
    clips: tuple[ClipInfo, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Of all clips: another one for other bytes."""
        return hashlib.sha256(json.dumps([asdict(clip) for clip in self.clips]).encode()).hexdigest()

    def of(self, split: str) -> tuple[ClipInfo, ...]:
        """The clips of one split, "train" or "held"."""
        return tuple(clip for clip in self.clips if clip.split == split)

    def to_show(self, frames: int) -> ClipInfo:
        """A clip of so many frames or more to look at: a held one, if there is any.

        Raises:
            InputError: all clips are shorter.
        """
        for clip in (*self.of("held"), *self.of("train")):
            if clip.frames >= frames:
                return clip
        raise InputError(f"expected a clip of {frames} frames or more in {self.folder}, got shorter ones; make longer ones")

    def frames(self, clip: ClipInfo, start: int, count: int) -> Pictures:
        """Some frames of a clip (count, side, side, 3), read alone.

        Raises:
            DatasetError: the file is missing or damaged.
        """
        found: Pictures = self._read(clip, "frames", slice(start, start + count))
        if found.shape != (count, self.side, self.side, 3) or found.dtype != np.uint8:
            path, expected = clip_file(self.folder, clip.name), (count, self.side, self.side, 3)
            raise DatasetError(
                f"expected pictures {expected} of uint8 in {path}, got {found.shape} of {found.dtype}; make the clips again"
            )
        return found

    def source(self, clip: ClipInfo) -> Pictures:
        """The portrait of a clip (side, side, 3), read alone. Raises DatasetError."""
        found: Pictures = self._read(clip, "source", slice(None))
        return found

    def load(self, clip: ClipInfo) -> Clip:
        """All arrays of a clip.

        Raises:
            DatasetError: the file is missing or damaged, or its speech or motion is not finite.
        """
        path = clip_file(self.folder, clip.name)
        arrays = Clip(*(self._read(clip, name, slice(None)) for name in Clip._fields))
        if hashlib.sha256(path.read_bytes()).hexdigest() != clip.sha256:
            raise DatasetError(f"expected the clip of clips.jsonl in {path}, got other bytes; make the clips again")
        if not (np.isfinite(arrays.features).all() and np.isfinite(arrays.motion).all()):
            raise DatasetError(f"expected finite speech and motion in {path}, got NaN or infinity; make the clips again")
        return arrays

    def _read(self, clip: ClipInfo, name: str, part: slice) -> Any:
        path = clip_file(self.folder, clip.name)
        try:
            with safe_open(path, framework="np") as file:
                return file.get_slice(name)[part]
        except (OSError, SafetensorError) as error:
            raise DatasetError(f"expected {name} of a clip in {path}, got: {error}; make the clips again") from error


def clip_file(folder: Path, name: str) -> Path:
    """Where the arrays of a clip lie."""
    return folder / "clips" / f"{name}.safetensors"


def open_clips(folder: Path) -> Clips:
    """The clips of a folder; their arrays are read when asked for.

    Raises:
        DatasetError: no folder of clips, one that is not complete, of another format, or damaged.
    """
    header = read_json(folder / "clips.json")
    if not is_same(header.get("format"), FORMAT) or not is_whole(header.get("side"), 1):
        raise DatasetError(
            f"expected clips of format {FORMAT} in {folder}, got {header.get('format')!r}; make the clips again"
        )
    clips = []
    for place, line in enumerate(read_lines(folder / "clips.jsonl"), 1):
        try:
            clips.append(from_json(ClipInfo, json.loads(line)))
            if clips[-1].split not in SPLITS:
                raise ValueError(f"the split {clips[-1].split!r}")
        except (ValueError, RecursionError) as error:
            where = f"{folder / 'clips.jsonl'}, line {place}"
            raise DatasetError(f"expected a clip in {where}, got: {error}; make the clips again") from None
    found = Clips(folder, header["side"], tuple(clips))
    if found.fingerprint != header.get("fingerprint"):
        raise DatasetError(f"expected the clips that {folder / 'clips.json'} tells of, got others; make the clips again")
    return found


class Job(NamedTuple):
    """A clip to render.

    Attributes:
        name: of the clip.
        portrait, speech: files.
        seed: of the motion.
        split: "train" or "held".
        edited: whether controls and emotions, drawn from the seed, change the face.
    """

    name: str
    portrait: Path
    speech: Path
    seed: int
    split: str
    edited: bool = False


def plan(
    portraits: Sequence[Path], speeches: Sequence[Path], clips: int, held_portraits: Iterable[str] = (), edited: int = 0
) -> list[Job]:
    """Clips to render: for training, portraits in turn with speech of their own, then `edited` more with edits; and two held
    ones of each portrait.

    The last `HELD_SPEECHES` files of speech (at most a third of all) are heard in held clips alone. Portraits whose name
    begins with one of `held_portraits` are seen in held clips alone.

    Raises:
        InputError: no portrait to train on, fewer than three files of speech, or a held portrait that there is not.
    """
    held = tuple(held_portraits)
    if missing := [name for name in held if not any(path.name.startswith(name) for path in portraits)]:
        raise InputError(f"expected portraits that begin with {', '.join(missing)}, got none; look at their names")
    seen = [path for path in portraits if not path.name.startswith(held)] if held else list(portraits)
    if not seen or len(speeches) < 3:
        raise InputError(
            f"expected a portrait to train on and three files of speech, got {len(seen)} and {len(speeches)}; give more"
        )
    spoken, unheard = split_speeches(speeches)
    jobs = []
    for place in range(clips + edited):
        name = f"train_{place:04d}" if place < clips else f"{EDITED_NAME}{place - clips:04d}"
        seed = place if place < clips else 100_000 + place - clips
        jobs.append(Job(name, seen[place % len(seen)], spoken[place % len(spoken)], seed, "train", place >= clips))
    for who, portrait in enumerate(portraits):
        for turn in range(2):
            speech = unheard[(2 * who + turn) % len(unheard)]
            jobs.append(Job(f"held_{who:02d}_{turn}", portrait, speech, 1000 + 2 * who + turn, "held"))
    return jobs


def split_speeches(speeches: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """What is spoken in training, and the last `HELD_SPEECHES` files (at most a third of all), which are not."""
    kept = min(HELD_SPEECHES, len(speeches) // 3)
    return speeches[: len(speeches) - kept], speeches[len(speeches) - kept :]


def render_clips(
    jobs: Sequence[Job],
    out: Path,
    side: int = SIDE,
    seconds: float = 8.0,
    bundle: str = "lite",
    report: Callable[[str], None] = print,
) -> Clips:
    """Render clips to a folder; those that are there already, of the same job, are kept.

    Args:
        jobs: names without repetition.
        seconds: longest clip; longer speech is cut.

    Raises:
        InputError: speech of less than five frames; a portrait or sound that cannot be read; a bundle without explicit motion.
        OutputError: a file cannot be written; finished clips stay.
    """
    check_folder(out)
    head: TalkingHead | None = None
    portraits = dict[Path, Portrait]()
    infos = list[ClipInfo]()
    for job in jobs:
        path, asked = clip_file(out, job.name), _asked(job, side, seconds, bundle)
        if made_for(path) != asked:
            head = head or load(bundle)
            if job.portrait not in portraits:
                portraits[job.portrait] = head.register(job.portrait, max_size=PICTURE_SIZE)
            clip = render_clip(head, portraits[job.portrait], job, side, seconds, bundle)
            write_clip(path, clip, asked)
            report(f"{job.name}, {len(clip.frames)} frames, {len(infos) + 1} of {len(jobs)} clips")
        infos.append(info_of(path, job.portrait.name, job.speech.name, job.seed, job.split))
    return write_index(out, side, infos)


def write_clip(path: Path, clip: Clip, asked: Mapping[str, str]) -> None:
    """Write the arrays of a clip, with what they were made of. Raises OutputError."""
    arrays = {name: np.ascontiguousarray(array) for name, array in clip._asdict().items()}
    write_bytes(path, save(arrays, metadata=dict(asked)))


def info_of(path: Path, portrait: str, speech: str, seed: int, split: str) -> ClipInfo:
    """What is known of a clip that was written."""
    with safe_open(path, framework="np") as file:
        frames = file.get_slice("frames").get_shape()[0]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return ClipInfo(path.stem, portrait, speech, seed, frames, split, sha256)


def write_index(out: Path, side: int, infos: Iterable[ClipInfo]) -> Clips:
    """Write the list of clips, which makes their folder complete. Raises OutputError."""
    clips = Clips(out, side, tuple(infos))
    write_bytes(out / "clips.jsonl", "".join(json.dumps(asdict(info)) + "\n" for info in clips.clips).encode())
    write_json(out / "clips.json", {"format": FORMAT, "side": side, "fingerprint": clips.fingerprint})
    return clips


def render_clip(head: TalkingHead, portrait: Portrait, job: Job, side: int, seconds: float, bundle: str) -> Clip:
    """One clip: 4 n + 1 frames of a portrait that speaks.

    Raises:
        InputError: speech of less than five frames, or a bundle without explicit motion.
    """
    samples = read_audio(job.speech)[: int(seconds * SAMPLE_RATE)]
    count = len(samples) // SAMPLES_PER_FRAME // 4 * 4 - 3
    if count < 5:
        found = len(samples) / SAMPLE_RATE
        raise InputError(f"expected speech of 0.32 s or more in {job.speech}, got {found:.2f} s; use another")
    samples = samples[: count * SAMPLES_PER_FRAME]
    square = square_of(portrait)
    pictures, motions = [], []
    controls, emotion = edits_of(job.seed, count) if job.edited else (None, None)
    for frame in head.animate(portrait, samples, seed=job.seed, still=True, controls=controls, emotion=emotion):
        if frame.motion is None:
            raise InputError(f"expected a bundle with explicit motion, got {bundle!r}; use lite")
        pictures.append(cut_square(frame.image, square, side))
        motions.append(np.asarray(frame.motion, np.float32))
    sound = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    features = features_of(encoder_of(bundle), sound).astype(np.float16)
    return Clip(
        np.stack(pictures[:count]),
        cut_square(portrait.picture, square, side),
        square,
        features,
        np.stack(motions[:count]),
        sound,
    )


def edits_of(seed: int, frames: int) -> tuple[Callable[[int], Controls], dict[str, float]]:
    """The controls of each frame of an edited clip, and its emotion: numbers that go from one random value to the next."""
    random = np.random.default_rng((seed, frames))
    values = {
        name: spread * (random.random() < EDITED_SHARE) * random.standard_normal(frames // EDIT_FRAMES + 2)
        for name, spread in EDITED.items()
    }
    emotion = {}
    if random.random() < EDITED_SHARE:
        shown = EMOTIONS[int(random.integers(len(EMOTIONS)))]
        emotion = {shown: float(random.uniform(0.3, 1.0))}

    def controls(frame: int) -> Controls:
        place, since = divmod(frame, EDIT_FRAMES)
        share = smoothstep(0.0, 1.0, since / EDIT_FRAMES)
        numbers = {}
        for names, track in values.items():
            for name in names:
                number = float((1 - share) * track[place] + share * track[place + 1])
                numbers[name] = min(max(number, CATALOG[name].low), CATALOG[name].high)
        return Controls.from_names(numbers)

    return controls, emotion


def _asked(job: Job, side: int, seconds: float, bundle: str) -> dict[str, str]:
    """What a clip is made of: texts, as the metadata of its file."""
    parts = {"portrait": job.portrait.name, "speech": job.speech.name, "seed": job.seed, "side": side, "seconds": seconds}
    asked = {name: str(value) for name, value in {**parts, "bundle": bundle, "format": FORMAT}.items()}
    return asked | ({"edited": str((EDITED, EDIT_FRAMES, EDITED_SHARE))} if job.edited else {})


def made_for(path: Path) -> Mapping[str, str]:
    """What the clip in a file was made of, as `write_clip` got it; nothing where there is no clip."""
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def files_of(folder: Path, what: str) -> list[Path]:
    """The files of a folder, sorted. Raises InputError: there is none."""
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not found:
        raise InputError(f"expected a folder with {what} at {folder}, got none; check the name")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = Arguments(prog="python -m ditto.training.latent.data", description="Render clips.")
    parser.add_argument("portraits", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=whole_number(1, 10**6), default=55)
    parser.add_argument("--edited", type=whole_number(0, 10**6), default=0, help="more, with controls and emotions")
    parser.add_argument("--seconds", type=real_number(0.4, 600), default=8.0)
    parser.add_argument("--side", type=whole_number(16, LARGEST_SIDE), default=SIDE)
    parser.add_argument("--held-portrait", action="append", default=[])
    given = parser.parse_args(arguments)
    try:
        portraits, speeches = files_of(given.portraits, "portraits"), files_of(given.speech, "speech")
        jobs = plan(portraits, speeches, given.clips, given.held_portrait, given.edited)
        render_clips(jobs, given.out, given.side, given.seconds)
    except DittoError as error:
        print(f"ditto: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ditto: interrupted; finished clips are kept, run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run(main)
