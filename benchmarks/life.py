"""Does the face live: in speech beside real talk, when silent, and from one to the other without a jump.

    python -m benchmarks.life [--bundle lite] [--minutes 10] [--utterances 40] [--seeds 5] [--style natural]
    python -m benchmarks.life --face-landmarker face_landmarker.task --landmarker-python PYTHON
    python -m benchmarks.life --real

Speech: recordings joined to takes of 12 s, before rendering, beside the figures of natural talk; with a face landmarker also
rendered, and seen by MediaPipe. Idle: minutes beside the example said in two presets; then every way from one to the other,
at every frame of the speech. Acceleration is the second difference of a keypoint posed by the motion, face units a frame
squared.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measures
from benchmarks._motions import rows_of, said_motion, style_option, without_pictures
from benchmarks._motions import said as said_frames
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.blendshapes import Seen, fill_head, published, see, spreads
from benchmarks.faces import SHARED, example_portrait, grid_holdout, tracked_clip
from benchmarks.natural import STATISTICS, natural_cuts
from benchmarks.speech import Samples, example_speech, read_speech
from ditto.commands import Arguments, existing_file, existing_folder, real_number, run, whole_number
from ditto.controls.ramps import Ramps
from ditto.errors import InputError
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.motion.idle import idle_frame, initial_idle
from ditto.motion.listening import Listener
from ditto.motion.motion import (
    BROWS,
    DEGREES,
    EXPRESSION,
    INNER_LIPS,
    KEYPOINTS,
    MOTION_SIZE,
    MOUTH_CORNERS,
    TEMPLATE_APERTURE,
    TRANSLATION,
    UPPER_LIDS,
    Keypoint,
    rotation_matrix,
)
from ditto.motion.space import LITE_SPACE
from ditto.performer import Draw, Edits, Shot, check_latency
from ditto.portrait.face_mesh import TEMPLATE, keypoints
from ditto.portrait.portrait import Portrait
from ditto.row_performer import IdleShot, NoPictures, RowFace, RowPerformer, RowShot
from ditto.talking_head import TalkingHead, load
from ditto.training.motion_data import fill_gaps, real_clip

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

CLOSED = 0.004  # fu between the inner lips, at most
AROUND = 24  # frames looked at after a switch
TAKE_SECONDS = 12  # as long as the clips of natural_talk.json at most
SPEECH = ("librispeech_test", "ljspeech")
SHUT = 0.7  # of the aperture: an upper lid that comes down further blinks
ANGLES = ("pitch", "yaw", "roll")
BANDS = ((0.15, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 4.0), (4.0, 8.0))  # Hz, of natural_talk.json
REAL_SOURCES = ("fluent_talk_8_people", "address_one_speaker", "real_talkers_7")  # of natural_talk.json, and its ditto
SOURCES = {
    **dict(zip(REAL_SOURCES, ("fluent talk", "address", "real talkers"), strict=True)),
    "ditto_2b5040d_on_the_fluent_clips": "ditto 2b5040d",
}
HEAD_STD_BARS = {"pitch": (2.5, 4.5), "yaw": (2.0, 4.5), "roll": (1.5, 3.5)}  # degrees
HEAD_FIELDS = {
    "std_3s": "std over 3 s",
    "speed_p50": "median speed, a second",
    "speed_p95": "p95 speed, a second",
    "range": "range in 12 s",
}
SPREADS = {
    "brows": "height of the brows",
    "opening": "lip opening",
    "width": "mouth width",
    "smile": "height of the corners",
}
BLENDSHAPE_BARS = {"browInnerUp": 0.06, "browOuterUpLeft": 0.06, "mouthPucker": 0.11, "mouthPressLeft": 0.025}
# Real talk in the same units, from `python -m benchmarks.life --real`: medians over clips, and the 99th percentile over
# frames. Two of the natural cuts have the closed lips that a neutral takes; GRID: 85 clips of speaker 1 that no training
# sees, and the five others.
REAL_SPREADS = {
    "brows": {"natural cuts": 0.0054, "GRID": 0.0026},
    "opening": {"natural cuts": 0.0286, "GRID": 0.0276},
    "width": {"natural cuts": 0.0354, "GRID": 0.0151},
    "smile": {"natural cuts": 0.0095, "GRID": 0.0065},
}
REAL_ACCELERATION = {"natural cuts": 0.0520, "GRID": 0.0674}
CALM = emotion_vector(None)
HEAD_POINTS = (Keypoint.FOREHEAD, Keypoint.NOSE_TIP, Keypoint.NECK, Keypoint.GLABELLA)
FACE: RowPerformer[Any, Any, Any, Any, Any] = RowPerformer(None, None, NoPictures(), LITE_SPACE)  # type: ignore[arg-type]
ANYONE = FACE.prepare(None)  # type: ignore[arg-type]  # on the lite face transitions are the same for every portrait


def silent(frames: int, seed: int) -> Array:
    """(frames, 70) idle motion."""
    state, rows = initial_idle(), []
    for _ in range(frames):
        values, state = idle_frame(state, seed)
        rows.append(LITE_SPACE.idle_motion(values, None))
    return np.array(rows)


def in_head(rows: Array) -> Floats:
    """(T, 21, 3) expression in the head frame."""
    return LITE_SPACE.to_head(rows, None)[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)


def acceleration(rows: Sequence[Array] | Array, points: Sequence[int] = tuple(range(KEYPOINTS))) -> float:
    """The largest of any keypoint over (T, 70)."""
    r = np.asarray(rows, np.float64)
    expression = r[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    posed = keypoints(TEMPLATE) @ rotation_matrix(*r[:, DEGREES].T) + expression
    posed = (1.0 + r[:, :1, None]) * posed + r[:, None, TRANSLATION]
    return float(np.linalg.norm(np.diff(posed[:, list(points)], 2, axis=0), axis=-1).max())


class Player:
    """Shows a face as a session does, and keeps the motion shown."""

    def __init__(self, seed: int) -> None:
        self.face: RowFace[Any, Any] = FACE.face(ANYONE, seed)
        self.shown: list[Array] = []

    def _show(self, shot: Shot) -> None:
        self.face = next_face(self.face, shot)
        assert self.face.row is not None
        self.shown.append(self.face.row)

    def speak(self, rows: Array, utterance: int = 0) -> None:
        for row in rows:
            self._show(RowShot(row, CALM, utterance))

    def idle(self, frames: int) -> None:
        for _ in range(frames):
            self._show(IdleShot())


def next_face(face: RowFace[Any, Any], shot: Shot) -> RowFace[Any, Any]:
    """The face after one more picture."""
    drawn = FACE.draw([Draw(face, shot, Edits.none())])[0]
    assert isinstance(drawn.face, RowFace)
    return drawn.face


def switches(rows: Array, seed: int) -> dict[str, list[list[Array]]]:
    """What is shown around every switch: two frames before it, so that no difference misses it, and `AROUND` after."""
    found: dict[str, list[list[Array]]] = {"idle, then speech": [], "speech, then idle": [], "interrupt": []}
    found["speech starves, goes on"] = []

    def keep(name: str, player: Player, last: int) -> None:
        found[name].append(player.shown[-last - 2 :])

    for number in range(40):
        player = Player(seed + number)
        player.idle(3 + 37 * number % 200)
        player.speak(rows[:AROUND])
        keep("idle, then speech", player, AROUND)
        player = Player(seed + number)
        player.idle(number)
        player.speak(rows[-2 * AROUND :], 1)
        player.idle(AROUND)
        keep("speech, then idle", player, AROUND)
    for k in range(3, len(rows) - AROUND):
        player = Player(seed + k)
        player.idle(k % 40)
        player.speak(rows[k - 3 : k])
        player.face = replace(player.face, transition=None, row=rows[k - 1], before=rows[k - 2])  # deep inside speech
        player.shown[-3:] = list(rows[k - 3 : k])
        player.idle(AROUND)
        keep("interrupt", player, AROUND)
        player.speak(rows[k : k + AROUND])
        keep("speech starves, goes on", player, AROUND)
    return found


def cost(call: Callable[[], Any], times: int = 400, repeats: int = 5) -> float:
    """Processor time of a call in milliseconds, least of several runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(times):
            call()
        best = min(best, time.process_time() - start)
    return 1000.0 * best / times


def costs(rows: Array, seed: int) -> dict[str, float]:
    """Milliseconds a frame of each part."""
    _, state = idle_frame(initial_idle(), seed)
    player = Player(seed)
    player.idle(3)
    face = next_face(player.face, RowShot(rows[40], CALM, 0))
    listener = Listener(seed)
    frame = np.zeros(SAMPLES_PER_FRAME, np.float32)
    ramps = Ramps.start().set(0, 2.0, emotion={"happy": 1.0}, head=(1, 2, 3))

    def hear() -> None:
        listener.push(frame)
        listener.react()

    return {
        "idle ms a frame": cost(lambda: idle_frame(state, seed)),
        "transition ms a frame": cost(lambda: next_face(face, RowShot(rows[41], CALM, 0))),
        "listening ms a frame": cost(hear),
        "ramp ms a frame": cost(lambda: ramps.at(20)),
    }


class Take(NamedTuple):
    """What is said: name of the first recording, samples of `TAKE_SECONDS`."""

    name: str
    samples: Samples


def takes(folders: Sequence[Path], count: int) -> list[Take]:
    """Takes of equal length out of the folders' recordings in turn, each joined with those that follow it by name."""
    queues = []
    for folder in folders:
        files = sorted(p for p in folder.glob("*") if p.suffix in (".flac", ".opus", ".wav"))
        queues.append(_joined(files))
    found: list[Take] = []
    while queues and len(found) < count:
        for queue in list(queues):
            take = next(queue, None)
            if take is None:
                queues.remove(queue)
            elif len(found) < count:
                found.append(take)
    return found


def _joined(files: Sequence[Path]) -> Iterator[Take]:
    name, held, length = "", [], TAKE_SECONDS * SAMPLE_RATE
    for path in files:
        name = name or path.stem
        held.append(read_speech(path))
        if sum(map(len, held)) >= length:
            yield Take(name, np.concatenate(held)[:length])
            name, held = "", []


class Life(NamedTuple):
    """How a face moves in one clip of T frames. Angles: pitch, yaw, roll, (3,) each; lengths in face units.

    Attributes:
        std, std_3s: standard deviation in degrees, of the clip and median of its stretches of 3 s.
        speed_p50, speed_p95: of the angular speed, degrees a second.
        range: greatest less least angle.
        bands: root mean square in degrees in each of `BANDS`, (5, 3).
        blinks: how many.
        brows, opening, width, smile: standard deviations of the height of the brows, of the gap between the lips, of
            the distance of the mouth corners and of their height.
        acceleration: (T - 2,) largest of any keypoint, posed.
    """

    std: Floats
    std_3s: Floats
    speed_p50: Floats
    speed_p95: Floats
    range: Floats
    bands: Floats
    blinks: int
    brows: float
    opening: float
    width: float
    smile: float
    acceleration: Floats

    @classmethod
    def of(cls, head: npt.ArrayLike) -> Life:
        """Of motion (T, 70) with the expression in the head frame."""
        rows = np.asarray(head, np.float64)
        angles, points = rows[:, DEGREES], rows[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
        speed = measures.speed(angles)
        stretch = 3 * FPS
        parts = [angles[i : i + stretch] for i in range(0, max(1, len(angles) - stretch + 1), stretch)]
        height, (right, left), (upper, lower) = points[..., 1], MOUTH_CORNERS, INNER_LIPS
        return cls(
            std=angles.std(0),
            std_3s=np.median([part.std(0) for part in parts], axis=0),
            speed_p50=np.percentile(speed, 50, axis=0),
            speed_p95=np.percentile(speed, 95, axis=0),
            range=np.ptp(angles, axis=0),
            bands=np.array([measures.band_rms(angles, *band) for band in BANDS]),
            blinks=blinks(points),
            brows=float(height[:, list(BROWS)].mean(1).std()),
            opening=float((height[:, lower] - height[:, upper]).std()),
            width=float((points[:, left, 0] - points[:, right, 0]).std()),
            smile=float(height[:, [right, left]].mean(1).std()),
            acceleration=measures.accelerations(posed(rows)),
        )


def blinks(points: Floats) -> int:
    """How often the upper lids come down by `SHUT` of the way, in keypoints (T, 21, 3) of the head frame."""
    down = points[:, list(UPPER_LIDS), 1].mean(1) > SHUT * TEMPLATE_APERTURE
    return len(measures.runs(down))


def posed(head: Floats) -> Floats:
    """Keypoints (T, 21, 3) of the template's face as motion (T, 70) moves them; expression in the head frame."""
    points = keypoints(TEMPLATE) + head[:, EXPRESSION].reshape(-1, KEYPOINTS, 3)
    return (1.0 + head[:, :1, None]) * (points @ rotation_matrix(*head[:, DEGREES].T)) + head[:, None, TRANSLATION]


def talking(
    head: TalkingHead, portrait: Portrait, said: Sequence[Take], seeds: Sequence[int], **stream: Any
) -> list[Life]:
    """Every take with every seed, before rendering."""
    space, plain = rows_of(head.performer).motion_space, without_pictures(head)
    motions = (said_motion(plain, portrait, take.samples, seed=seed, **stream) for seed in seeds for take in said)
    return [Life.of(space.to_head(motion.values, portrait)) for motion in motions]


def real_lives(data: Path) -> dict[str, list[Life]]:
    """Of tracked real talk; clips without closed lips are left out, because their expression has no neutral."""
    grid = [*sorted((data / "grid_other").glob("*.mpg")), *grid_holdout(data / "grid_s1")]
    sets = {
        "natural cuts": [cut.landmarks for cut in natural_cuts(data / "natural_talk")],
        "GRID": [tracked_clip(path).landmarks for path in grid],
    }
    lives: dict[str, list[Life]] = {}
    for name, tracks in sets.items():
        for landmarks in tracks:
            with suppress(ValueError):
                lives.setdefault(name, []).append(Life.of(real_clip(fill_gaps(landmarks)).motion))
    return lives


def median_of(lives: Sequence[Life], field: str) -> Floats:
    return np.median([getattr(life, field) for life in lives], axis=0)


def head_figures(stds: Floats, fields: dict[str, Floats], bands: Floats) -> list[Figure]:
    """Of angles in degrees: standard deviations (3,), `HEAD_FIELDS` (3,) each, bands (5, 3); beside natural talk."""
    sources = json.loads(STATISTICS.read_text())["head_pose_degrees_pitch_yaw_roll"]

    def beside(field: str, axis: int, value: float) -> dict[str, float]:
        real = {title: float(sources[name][field][axis]) for name, title in SOURCES.items()}
        mean = float(np.mean([real[SOURCES[name]] for name in REAL_SOURCES]))
        return {"of real mean": value / mean, **real}

    figures = []
    for axis, angle in enumerate(ANGLES):
        value = float(stds[axis])
        low, high = HEAD_STD_BARS[angle]
        figures.append(Figure(f"{angle}: std over 12 s", value, low, high, beside("std", axis, value)))
        for field, words in HEAD_FIELDS.items():
            value = float(fields[field][axis])
            figures.append(Figure(f"{angle}: {words}", value, beside=beside(field, axis, value)))
        for number, band in enumerate(BANDS):
            value = float(bands[number, axis])
            real = beside(f"band_{band[0]:g}_{band[1]:g}", axis, value)
            mean = float(np.mean([real[SOURCES[name]] for name in REAL_SOURCES]))
            figures.append(Figure(f"{angle}: RMS {band[0]:g}-{band[1]:g} Hz", value, mean / 2, 2 * mean, real))
    return figures


def life_figures(lives: Sequence[Life], seconds: float) -> list[Figure]:
    """Medians over clips, beside natural talk; but blinks and accelerations over all that was said."""
    of_blinks = 60.0 * sum(life.blinks for life in lives) / seconds
    acceleration = np.concatenate([life.acceleration for life in lives])
    largest, limit = float(acceleration.max()), 1.5 * REAL_ACCELERATION["GRID"]
    return [
        *head_figures(
            median_of(lives, "std"),
            {field: median_of(lives, field) for field in HEAD_FIELDS},
            median_of(lives, "bands"),
        ),
        Figure("blinks a minute in speech", of_blinks, 20.0, 32.0),
        *(
            Figure(f"{words}: std, fu", float(median_of(lives, field)), beside=REAL_SPREADS[field])
            for field, words in SPREADS.items()
        ),
        Figure("acceleration of keypoints, p99", float(np.percentile(acceleration, 99)), beside=REAL_ACCELERATION),
        Figure("acceleration of keypoints, p99.9", float(np.percentile(acceleration, 99.9))),
        Figure("acceleration of keypoints, largest", largest, high=limit),
    ]


def seen_figures(clips: Sequence[Sequence[Seen | None]]) -> list[Figure]:
    """What MediaPipe sees of rendered clips, beside the same of natural talk and of the ditto measured there."""
    heads = [fill_head(clip) for clip in clips]
    motions = []
    for head in heads:
        rows = np.zeros((len(head), MOTION_SIZE))
        rows[:, DEGREES] = head
        motions.append(Life.of(rows))
    fields = {field: median_of(motions, field) for field in HEAD_FIELDS}
    figures = head_figures(median_of(motions, "std"), fields, median_of(motions, "bands"))
    shapes = spreads(clips)
    for name, real, ditto in published(STATISTICS):
        value, low = shapes.get(name, float("nan")), BLENDSHAPE_BARS.get(name)
        mean = float(np.mean(list(real.values())))
        factors = {"of real mean": value / mean} if mean > 0.001 else {}
        factors |= {"of bar": value / low} if low else {}
        figures.append(Figure(f"{name}: std", value, low, beside={**factors, **real, **ditto}))
    return figures


def rendered_clips(
    head: TalkingHead, portrait: Portrait, said: Sequence[Take], model: Path, python: str, **stream: Any
) -> list[list[Seen | None]]:
    """The takes rendered, and what MediaPipe sees in each frame."""
    clips = []
    for take in said:
        frames = [frame.image for frame in said_frames(head.stream(portrait, **stream), take.samples)]
        clips.append(see(frames, model, python))
    return clips


def idle_figures(
    head: TalkingHead, portrait: Portrait, minutes: float, seed: int, **stream: Any
) -> tuple[list[Figure], list[list[Any]]]:
    """Idle, transitions, costs; and the table of the switches."""
    samples, plain = read_speech(example_speech()), without_pictures(head)
    speech: dict[str, Array] = {}
    for name in ("quality", "low"):
        motion = said_motion(plain, portrait, samples, latency=name, seed=seed, **stream)
        speech[name] = motion.values
    still = silent(int(minutes * 60 * FPS), seed)

    points = in_head(still)
    figures = [
        Figure("idle: blinks a minute", blinks(points) / minutes, 10.0, 25.0),
        Figure("idle: lips closed", float((np.diff(points[:, INNER_LIPS, 1])[:, 0] <= CLOSED).mean()), 0.99),
    ]
    for number, angle in enumerate(ANGLES, 1):
        beside = {name: float(rows[:, number].std()) for name, rows in speech.items()}
        figures.append(
            Figure(f"idle: {angle}, standard deviation in degrees", float(still[:, number].std()), beside=beside)
        )
    smooth = {name: acceleration(rows, HEAD_POINTS) for name, rows in speech.items()}
    figures.append(Figure("idle: largest acceleration of the head", acceleration(still, HEAD_POINTS), beside=smooth))
    table: list[list[Any]] = []
    for name, rows in speech.items():
        inside = acceleration(rows)
        for case, shown in switches(rows, seed).items():
            at_switches = max(acceleration(frames) for frames in shown)
            figures.append(Figure(f"{case} ({name}), ratio", at_switches / inside, high=1.5))
            table.append([case, name, len(shown), inside, at_switches, at_switches / inside])
            if case == "interrupt":
                third = max(float(np.diff(in_head(np.array(f))[4, INNER_LIPS, 1])[0]) for f in shown)
                figures.append(
                    Figure(f"lips apart in the third frame of an interrupt ({name}), fu", third, high=CLOSED)
                )
    figures += [Figure(name, value) for name, value in costs(speech["low"], seed).items()]
    return figures, table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Arguments(prog="python -m benchmarks.life", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--minutes", type=real_number(0, 600), default=10.0, help="of idle; 0 leaves out idle and transitions")
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0, help="of idle, and the first of speech")
    parser.add_argument(
        "--utterances", type=whole_number(0, 10**6), default=40, help="how many takes of 12 s to say; 0 leaves out speech"
    )
    parser.add_argument("--seeds", type=whole_number(1, 1000), default=5, help="how many seeds to say each take with")
    parser.add_argument("--latency", default="quality", help="of the speech")
    parser.add_argument("--style", help="of the speech: a name or a number")
    parser.add_argument("--portrait", type=Path, help="a photograph; the example by default")
    parser.add_argument("--data", type=existing_folder, default=SHARED, help="folder with speech (with --real: the clips)")
    parser.add_argument(
        "--face-landmarker", type=existing_file, help="MediaPipe's face_landmarker.task: measure blendshapes too"
    )
    parser.add_argument("--landmarker-python", default=sys.executable, help="a Python with the package mediapipe")
    parser.add_argument(
        "--rendered", type=whole_number(0, 10**6), default=8, help="how many takes to render for the blendshapes"
    )
    parser.add_argument("--real", action="store_true", help="the same figures of tracked real talk, and nothing else")
    options = parser.parse_args(arguments)
    if options.real:
        real_talk(options.data)
        return
    if 0 < options.minutes < 0.1:
        parser.error(f"expected --minutes 0, or 0.1 and more, got {options.minutes}; give more")
    if not (options.minutes or options.utterances or options.face_landmarker):
        parser.error("expected something to measure, got --minutes 0 and --utterances 0; give one of them above 0")
    head = load(options.bundle)
    try:
        rows_of(head.performer)
        check_latency(options.latency, head.performer.latencies)
        style = style_option(options.style)
        portrait = head.register(options.portrait or example_portrait())
        stream = {"latency": options.latency, **style}
        said = takes([options.data / "speech" / name for name in SPEECH], options.utterances)
        if options.utterances > 0 and not said:
            raise InputError(f"expected recordings in {options.data}/speech, got none; give another folder with --data")
        seeds = range(options.seed, options.seed + options.seeds)
        lives = talking(head, portrait, said, seeds, **stream)
        figures = life_figures(lives, TAKE_SECONDS * len(lives)) if lives else []
        tables = [figures_table("Speech, before rendering: head in degrees", figures)] if figures else []
        if options.face_landmarker:
            shown = said[: options.rendered]
            if not shown:
                raise InputError(
                    f"expected takes to render for --face-landmarker, got --utterances {options.utterances} and "
                    f"--rendered {options.rendered}; give both above 0"
                )
            seen = seen_figures(
                rendered_clips(head, portrait, shown, options.face_landmarker, options.landmarker_python, **stream)
            )
            figures += [replace(figure, name=f"rendered: {figure.name}") for figure in seen]
            tables.append(figures_table("Rendered, seen by MediaPipe: head in degrees, spread of blendshapes", seen))
    except (ValueError, InputError) as error:
        parser.error(str(error))
    if options.minutes > 0:
        idle, table = idle_figures(head, portrait, options.minutes, options.seed, **style)
        figures += idle
        columns = ["switch", "preset", "how often", "largest inside speech", "at the switch", "ratio"]
        tables += [figures_table("Idle, transitions", idle), rows_table("Acceleration at switches", columns, table)]
    more = {
        "utterances": options.utterances,
        "seeds": options.seeds,
        "latency": options.latency,
        "style": options.style,
    }
    publish("life", figures, tables, minutes=options.minutes, seed=options.seed, **more)


def real_talk(data: Path) -> None:
    """Print what `REAL_SPREADS` and `REAL_ACCELERATION` were read from."""
    rows, found = [], real_lives(data)
    if not found:
        raise InputError(f"expected clips of real talk in {data}, got none; give another folder with --data")
    for name, lives in found.items():
        acceleration = np.concatenate([life.acceleration for life in lives])
        values = [float(median_of(lives, field)) for field in SPREADS]
        rows.append([name, len(lives), *values, *(float(v) for v in np.percentile(acceleration, [99, 99.9, 100]))])
    columns = ["clips", "number", *SPREADS, "acceleration p99", "p99.9", "largest"]
    publish("life", [], [rows_table("Real talk", columns, rows)], real={row[0]: row[1:] for row in rows})


if __name__ == "__main__":
    run(main)
