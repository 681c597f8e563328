"""Does a silent face live, and does it come and go without a jump: idle, transitions, listening, before rendering.

    python -m benchmarks.life [--bundle lite] [--minutes 10] [--seed 0]

Idle minutes beside the example said in two presets; then every way from one to the other, at every frame of the speech.
Acceleration is the second difference of a keypoint posed by the motion, face units a frame squared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._motions import NoPictures, rows_of
from benchmarks._report import Figure, figures_table, publish, rows_table
from benchmarks.speech import Samples, example_speech, read_speech
from ditto.controls.ramps import Ramps
from ditto.lite.speech_encoder import HOP_SAMPLES
from ditto.media.rates import FPS, SAMPLES_PER_FRAME
from ditto.motion.emotion import emotion_vector
from ditto.motion.eyes import BLINK
from ditto.motion.idle import idle_frame, initial_idle
from ditto.motion.listening import Listener
from ditto.motion.motion import (
    DEGREES,
    EXPRESSION,
    INNER_LIPS,
    KEYPOINTS,
    TEMPLATE_APERTURE,
    TRANSLATION,
    Keypoint,
    rotation_matrix,
)
from ditto.motion.space import LITE_SPACE
from ditto.performer import Draw, Edits, Shot
from ditto.portrait.face_mesh import TEMPLATE, keypoints
from ditto.row_performer import IdleShot, RowFace, RowPerformer, RowShot
from ditto.talking_head import TalkingHead, load

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

CLOSED = 0.004  # fu between the inner lips, at most
AROUND = 24  # frames looked at after a switch
CALM = emotion_vector(None)
HEAD_POINTS = (Keypoint.FOREHEAD, Keypoint.NOSE_TIP, Keypoint.NECK, Keypoint.GLABELLA)
FACE: RowPerformer[Any, Any, Any, Any, Any] = RowPerformer(None, None, NoPictures(), LITE_SPACE)  # type: ignore[arg-type]
ANYONE = FACE.prepare(None)  # type: ignore[arg-type]  # on the lite face transitions are the same for every portrait


def said(head: TalkingHead, samples: Samples, latency: str, seed: int) -> Array:
    """(T, 70) the motion of a recording on a template face."""
    performer = rows_of(head.performer)
    sampler: Any = performer.sampler_for(latency)
    state = performer.encoder.initial_state(1)
    frames = -(-len(samples) // SAMPLES_PER_FRAME)
    padded = np.zeros((len(samples) // HOP_SAMPLES + 2) * HOP_SAMPLES, np.float32)
    padded[: len(samples)] = samples
    heard = []
    for hop in padded.reshape(-1, HOP_SAMPLES):
        [(features, state)] = performer.encoder.step_batch([hop], [state])
        heard.append(features)
    start = sampler.initial_state(keypoints(TEMPLATE), (1.0, 1.0), seed)
    rows, _ = sampler(np.concatenate(heard[1:])[:frames], CALM, start, final=True)
    return rows


def silent(frames: int, seed: int) -> Array:
    """(frames, 70) idle motion."""
    state, rows = initial_idle(), []
    for _ in range(frames):
        values, state = idle_frame(state, seed, CALM)
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
    _, state = idle_frame(initial_idle(), seed, CALM)
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
        "idle ms a frame": cost(lambda: idle_frame(state, seed, CALM)),
        "transition ms a frame": cost(lambda: next_face(face, RowShot(rows[41], CALM, 0))),
        "listening ms a frame": cost(hear),
        "ramp ms a frame": cost(lambda: ramps.at(20)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.life", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--minutes", type=float, default=10.0, help="of idle")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    head, samples = load(options.bundle), read_speech(example_speech())
    speech = {name: said(head, samples, name, options.seed) for name in ("quality", "low")}
    still = silent(int(options.minutes * 60 * FPS), options.seed)

    points = in_head(still)
    shut = points[:, Keypoint.RIGHT_UPPER_LID, 1] > TEMPLATE_APERTURE * (1.0 - BLINK[2])
    blinks = int((shut[1:] & ~shut[:-1]).sum())
    figures = [
        Figure("blinks a minute", blinks / options.minutes, 10.0, 25.0),
        Figure("lips closed", float((np.diff(points[:, INNER_LIPS, 1])[:, 0] <= CLOSED).mean()), 0.99),
    ]
    for number, angle in ((1, "pitch"), (2, "yaw"), (3, "roll")):
        beside = {name: float(rows[:, number].std()) for name, rows in speech.items()}
        figures.append(Figure(f"{angle}, standard deviation in degrees", float(still[:, number].std()), beside=beside))
    smooth = {name: acceleration(rows, HEAD_POINTS) for name, rows in speech.items()}
    figures.append(Figure("largest acceleration of the head", acceleration(still, HEAD_POINTS), beside=smooth))
    table: list[list[Any]] = []
    for name, rows in speech.items():
        inside = acceleration(rows)
        for case, shown in switches(rows, options.seed).items():
            at_switches = max(acceleration(frames) for frames in shown)
            figures.append(Figure(f"{case} ({name}), ratio", at_switches / inside, high=1.5))
            table.append([case, name, len(shown), inside, at_switches, at_switches / inside])
            if case == "interrupt":
                third = max(float(np.diff(in_head(np.array(f))[4, INNER_LIPS, 1])[0]) for f in shown)
                figures.append(
                    Figure(f"lips apart in the third frame of an interrupt ({name}), fu", third, high=CLOSED)
                )
    figures += [Figure(name, value) for name, value in costs(speech["low"], options.seed).items()]
    columns = ["switch", "preset", "how often", "largest inside speech", "at the switch", "ratio"]
    tables = [figures_table("Idle, transitions", figures, "idle"), rows_table("Acceleration at switches", columns, table)]
    publish("life", figures, tables, minutes=options.minutes, seed=options.seed)


if __name__ == "__main__":
    main()
