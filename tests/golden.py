"""Recorded outputs to compare a change with: run before it, and after it, on one machine.

    python tests/golden.py record FOLDER
    python tests/golden.py compare FOLDER

Outputs are bit-identical on one machine only, so the recordings are not in the repository. A change that is not meant
to alter any output passes `compare`; for one that is, `compare` prints by how much each output differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from actors import HandClock

import ditto
from ditto.controls import Controls
from ditto.live import Frame, Scheduler
from ditto.media.audio import read_audio

TOP = Path(__file__).resolve().parents[1]
FPS = 25
LATENCIES = "quality", "balanced", "low"
Record = dict[str, np.ndarray]


def record_of(items: Iterable[object]) -> Record:
    """Pictures, motions, sound and places of frames, the ends of utterances among them."""
    images, motions, sound, places = [], [], [], []
    for item in items:
        if not hasattr(item, "image"):
            places.append((-1, item.epoch, round(item.pts_seconds * FPS)))
            continue
        images.append(item.image)
        motions.append(np.asarray(getattr(item.motion, "compact", item.motion), np.float32))
        sound.append(item.audio)
        kind = ("speech", "transition", "idle").index(getattr(item, "kind", "speech"))
        places.append((item.index, kind, getattr(item, "epoch", 0)))
    return {
        "images": np.array(images),
        "motions": np.array(motions),
        "sound": np.array(sound),
        "places": np.array(places),
    }


def speak_offline(head: ditto.TalkingHead, portrait: ditto.Portrait, samples: np.ndarray, **options: object) -> Record:
    return record_of(head.animate(portrait, samples, seed=3, **options))


def stream_at(head: ditto.TalkingHead, portrait: ditto.Portrait, samples: np.ndarray, latency: str) -> Record:
    stream = head.stream(portrait, seed=5, latency=latency)
    frames = [frame for start in range(0, len(samples), 977) for frame in stream.push(samples[start : start + 977])]
    return record_of(frames + stream.flush())


def session_at(head: ditto.TalkingHead, portrait: ditto.Portrait, samples: np.ndarray, latency: str) -> Record:
    """Idle, an utterance with a change of emotion and gaze in it, one that is interrupted, and idle again."""
    clock = HandClock()
    clock.time = 100.0
    head.scheduler = Scheduler(head.performer, 2, clock)
    items: list[object] = []

    def read(session: object, count: int, until: Callable[[object], bool] = lambda _: False) -> None:
        for _ in range(count):
            item = session.get(20.0)
            assert item is not None
            items.append(item)
            if isinstance(item, Frame) and item.kind != "speech":
                clock.advance(1.0 / FPS)
            if until(item):
                return

    def settle() -> None:
        """Wait until all is computed that can be: what a call changes depends on how far ahead that is."""
        while head.scheduler.busy:
            time.sleep(0.002)

    def still_clock() -> None:
        """Only what is pushed is drawn from here on: no idle frame falls due."""
        settle()
        clock.time -= 10.0 / FPS

    with head.blocking_session(portrait, latency=latency, seed=9, idle=True) as session:
        read(session, 30)
        still_clock()
        session.push(samples)
        session.flush()
        read(session, 10)
        settle()
        session.control(emotion={"happy": 0.7}, gaze=(6.0, 2.0), head=(2.0, 4.0, 0.0), ramp_seconds=0.3)
        read(session, 10**6, lambda item: not hasattr(item, "image"))
        session.push(samples[: len(samples) // 2])
        session.flush()
        read(session, 8)
        settle()
        session.interrupt()
        settle()
        clock.time += 10.0 / FPS
        session.listen(samples)
        read(session, 40)
    return record_of(items)


CONTROLS = {
    "gaze": Controls(gaze=(15.0, 8.0)),
    "pose": Controls(pitch_degrees=3.0, yaw_degrees=-8.0, roll_degrees=2.0, zoom=1.05),
    "keypoint": Controls(keypoints={"nose_tip": (0.03, 0.0, 0.0), "right_brow": (0.0, -0.05, 0.0)}),
    "factors": Controls(gains={"face": 1.3, "lips": 0.7, "head": 0.5, "blinks": 0.0}),
}


Case = tuple[str, Callable[[], Record]]


def lite(samples: np.ndarray, portrait_of: Callable[[int], ditto.Portrait]) -> Iterator[Case]:
    head, portrait = ditto.load("lite", max_sessions=2), portrait_of(384)
    second = samples[: 640 * FPS]
    timeline = lambda frame: Controls(yaw_degrees=0.3 * frame)  # noqa: E731
    yield "lite-animate", lambda: speak_offline(head, portrait, samples)
    yield "lite-emotion", lambda: speak_offline(head, portrait, second, emotion={"angry": 0.8, "sad": 0.2}, still=True)
    for name, controls in [*CONTROLS.items(), ("timeline", timeline)]:
        yield f"lite-{name}", partial(speak_offline, head, portrait, second, controls=controls)
    for latency in LATENCIES:
        yield f"lite-stream-{latency}", partial(stream_at, head, portrait, samples, latency)
        yield f"lite-session-{latency}", partial(session_at, head, portrait, samples, latency)


def full(samples: np.ndarray, portrait_of: Callable[[int], ditto.Portrait]) -> Iterator[Case]:
    from checkpoints import convert_tiny, publish

    portrait = portrait_of(256)
    with tempfile.TemporaryDirectory() as folder:
        publish(Path(folder))
        bundle = convert_tiny(Path(folder), Path(folder) / "bundle" / "full")
        head = ditto.load(bundle.path, max_sessions=2)
    yield "full-animate", lambda: speak_offline(head, portrait, samples[: 640 * 30])
    for name, controls in CONTROLS.items():
        yield f"full-{name}", partial(speak_offline, head, portrait, samples[: 640 * 4], controls=controls)
    for latency in LATENCIES:
        yield f"full-session-{latency}", partial(session_at, head, portrait, samples[: 640 * 20], latency)


def cases(folder: Path) -> Iterator[Case]:
    """All cases, on portraits kept in the folder: registration is another matter."""

    def portrait_of(size: int) -> ditto.Portrait:
        file = folder / f"portrait-{size}.npz"
        if not file.exists():
            ditto.load("lite").register(TOP / "examples" / "portrait.jpg", max_size=size).save(file)
        return ditto.Portrait.load(file)

    samples = read_audio(TOP / "examples" / "speech.flac")[8000 : 8000 + 640 * 60]
    yield from lite(samples, portrait_of)
    yield from full(samples, portrait_of)


def difference(before: np.ndarray, after: np.ndarray) -> str:
    """In words; empty where both are the same bit for bit."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return f"{before.dtype}{before.shape} became {after.dtype}{after.shape}"
    if np.array_equal(before, after, equal_nan=before.dtype.kind == "f"):
        return ""
    apart = np.abs(before.astype(np.float64) - after.astype(np.float64))
    return f"{(apart > 0).mean():.2%} differ, by {apart.max():.6g} at most, {apart.mean():.3g} on average"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="cases whose name begins with this")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    changed = 0
    for name, record_case in cases(given.folder):
        if not name.startswith(given.only):
            continue
        record = record_case()
        file = given.folder / f"{name}.npz"
        if given.action == "record":
            np.savez(file, **record)
            print("recorded", name, {key: value.shape for key, value in record.items()}, flush=True)
            continue
        with np.load(file, allow_pickle=False) as before:
            apart = {key: difference(before[key], record[key]) for key in record}
        apart = {key: text for key, text in apart.items() if text}
        changed += bool(apart)
        lines = [f"\n    {key}: {text}" for key, text in apart.items()]
        print("changed  " if apart else "identical", name, *lines, flush=True)
    print(f"{changed} cases changed" if given.action == "compare" else "done")
    return int(changed > 0)


if __name__ == "__main__":
    sys.exit(main())
