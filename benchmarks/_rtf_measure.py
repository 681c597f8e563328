"""The parts of `benchmarks.rtf`: loading, short turns, flat out, conversations of many sessions, lips against sound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks import measures
from benchmarks._motions import rows_of
from benchmarks._rtf_machine import Meter, cold_loads
from benchmarks._rtf_play import Pictures, Player, Samples, Utterance, converse
from benchmarks._rtf_trace import STEP, Lag, Tape, lag, lip_gap, loudness, missed, speech_of
from benchmarks.faces import face_window, track
from benchmarks.speech import read_speech
from ditto.errors import AudioError, InputError
from ditto.media.audio import SAMPLE_RATE
from ditto.performer import check_latency
from ditto.portrait.portrait import Portrait, is_saved
from ditto.stream import FPS, SAMPLES_PER_FRAME
from ditto.talking_head import TalkingHead, load

Floats = npt.NDArray[np.float64]

VIDEO = {"pictures": "rgb24", "motion": "motion"}  # what sessions give -> their option `output`
REPEATS = 3  # of what takes seconds each: loading, registering
LONGEST_SECONDS, SHORTEST_SECONDS = 8.0, 2.0  # of an utterance cut from a recording
PROBE_SECONDS = 12.0  # of speech at either end of a conversation, for the lips against the sound
MOST_MISSED = 0.001  # of the speech frames of sessions that are held


class Setting(NamedTuple):
    """What is measured: a head, a portrait, speech in utterances, and how sessions are opened; video is one of VIDEO."""

    head: TalkingHead
    portrait: Portrait
    speech: list[Samples]
    latency: str
    seed: int
    video: str

    def player(self, seconds: float, number: int = 0) -> Player:
        """A player of the session `number`, for about so many seconds."""
        session = self.head.session(
            self.portrait,
            latency=self.latency,
            output=VIDEO[self.video],
            seed=self.seed + number,
            any_speed=self.head.bundle.motion_space != "lite",  # the published Ditto may be measured where it is too slow
        )
        return Player(session, frames_in(seconds))


def frames_in(seconds: float) -> int:
    """Frames that may come in about so much time: with ample room, since overloaded sessions take longer."""
    return int((2.0 * seconds + 120.0) * FPS)


# Loading


class Loading(NamedTuple):
    """Seconds: of whole fresh processes that import and load, of `load` in them and here, of registrations."""

    process: list[float]
    cold: list[float]
    warm: list[float]
    first_registration: float
    registration: list[float]
    preparation: float


def load_and_register(
    bundle: str, picture: Path, max_sessions: int, device: str, latency: str
) -> tuple[TalkingHead, Portrait, Loading]:
    """A head and a portrait, and what getting them takes. A saved portrait is loaded instead.

    Raises:
        InputError: the bundle has no such latency, or no explicit motion.
    """
    warm, registrations = [], []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        head = load(bundle, max_sessions=max_sessions, device=device)
        warm.append(time.perf_counter() - start)
        check(head, latency)
    fresh = cold_loads(bundle, device, REPEATS)
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        portrait = Portrait.load(picture) if is_saved(picture) else head.register(picture)
        registrations.append(time.perf_counter() - start)
    start = time.perf_counter()
    head.appearance(portrait)
    preparation = time.perf_counter() - start
    process, cold = ([seconds[i] for seconds in fresh] for i in (0, 1))
    return head, portrait, Loading(process, cold, warm[1:], registrations[0], registrations[1:], preparation)


def check(head: TalkingHead, latency: str) -> None:
    """Raise InputError where a head cannot be measured at a latency."""
    rows_of(head.performer)
    try:
        check_latency(latency, head.performer.latencies)
    except ValueError as error:
        raise InputError(str(error)) from None


def utterances(recordings: Sequence[Samples]) -> list[Samples]:
    """Recordings cut into utterances of 8 s at most; what is left of one under 2 s is dropped, unless it is all."""
    longest, shortest = (int(s * SAMPLE_RATE) for s in (LONGEST_SECONDS, SHORTEST_SECONDS))
    cut = [recording[i : i + longest] for recording in recordings for i in range(0, len(recording), longest)]
    return [piece for piece in cut if len(piece) >= shortest] or cut


def read_utterances(path: Path) -> list[Samples]:
    """The utterances of a recording, or of every recording (.flac, .wav, .mp3, .ogg) in a folder.

    Raises:
        AudioError: a recording cannot be read, or the folder holds none.
    """
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in (".flac", ".wav", ".mp3", ".ogg"))
    if not files:
        raise AudioError(f"{path} holds no recordings (.flac, .wav, .mp3, .ogg); name a recording or another folder")
    return utterances([read_speech(file) for file in files])


def long_enough(speech: Sequence[Samples], delay: float) -> list[Samples]:
    """The utterances that go on for a second after their first frame can be there, `delay` seconds after their beginning.

    Raises:
        AudioError: there is none.
    """
    chosen = [samples for samples in speech if len(samples) > (delay + 1.0) * SAMPLE_RATE]
    if not chosen:
        raise AudioError(
            f"utterances of over {delay + 1.0:.2f} s are expected; give other --speech, or another --latency"
        )
    return chosen


# Steps


STEPS = ("encode", "sample", "render", "paste", "convert")  # as `Scheduler.observe` names them
STEPS_A_FRAME = 5  # at most: three, and two for every hop or window


@contextmanager
def watched(head: TalkingHead, frames: int) -> Iterator[Tape]:
    """Every call of the networks and of the renderer meanwhile, of STEP, for so many frames at most."""
    steps = Tape(STEP, STEPS_A_FRAME * frames)
    end = head.scheduler.observe(lambda name, seconds, rows: steps.add((STEPS.index(name), seconds, rows)))
    try:
        yield steps
    finally:
        end()


# Conversations


class Run(NamedTuple):
    """Some sessions in conversation at once.

    Attributes:
        players: one a session; the first spoke the probe at the beginning and at the end.
        probes: the utterances of the probe, first and last.
        pictures: the first player's face through both probes; None of sessions without pictures.
        meter: what it all cost.
        steps: of the scheduler, of STEP.
    """

    players: list[Player]
    probes: list[list[Utterance]]
    pictures: Pictures | None
    meter: Meter
    steps: Tape

    @property
    def missed(self) -> tuple[int, int]:
        """Speech frames after their deadlines, and all, of every session."""
        counts = [missed(player.trace.seen()) for player in self.players]
        return sum(late for late, _ in counts), sum(every for _, every in counts)

    @property
    def held(self) -> bool:
        """Whether under 0.1 % of the deadlines were missed."""
        late, every = self.missed
        return late < MOST_MISSED * every


def probe_of(speech: Sequence[Samples]) -> list[Samples]:
    """The first utterances, about 12 s of them."""
    probe: list[Samples] = []
    for samples in speech:
        if probe and sum(map(len, probe)) + len(samples) > 1.5 * PROBE_SECONDS * SAMPLE_RATE:
            break
        probe.append(samples)
        if sum(map(len, probe)) >= PROBE_SECONDS * SAMPLE_RATE:
            break
    return probe


async def converse_at_once(setting: Setting, sessions: int, minutes: float) -> Run:
    """So many sessions, each in a conversation of its own: `_rtf_play.converse`."""
    probe = probe_of(setting.speech)
    frames = sum(-(-len(samples) // SAMPLES_PER_FRAME) for samples in probe)
    pictures = Pictures(face_window(setting.portrait), 2 * frames) if setting.video == "pictures" else None
    seconds = 60.0 * minutes + 4.0 * PROBE_SECONDS
    async with AsyncExitStack() as opened:
        players = [await opened.enter_async_context(setting.player(seconds, number)) for number in range(sessions)]
        await asyncio.sleep(1.0)
        with watched(setting.head, frames=sessions * frames_in(seconds)) as steps:
            async with Meter() as meter:
                said = await asyncio.gather(
                    *(
                        converse(
                            player,
                            probe,
                            setting.speech,
                            60.0 * minutes,
                            setting.seed + number,
                            None if number else pictures,
                        )
                        for number, player in enumerate(players)
                    )
                )
    return Run(players, said[0], pictures, meter, steps)


async def most_sessions(try_out: Callable[[int], Any], most: int) -> tuple[list[Run], int]:
    """How many sessions are held at once: doubled until some are not, then halved between.

    Args:
        try_out: makes the `Run` of so many sessions.
        most: no more are tried.

    Returns:
        Every run, and the number held, 0 if not even one.
    """
    runs: list[Run] = []

    async def holds(sessions: int) -> bool:
        runs.append(await try_out(sessions))
        return runs[-1].held

    held, broken = 0, most + 1
    while held < most:
        expected = min(max(1, 2 * held), most)
        if not await holds(expected):
            broken = expected
            break
        held = expected
    while broken - held > 1:
        middle = (held + broken) // 2
        if await holds(middle):
            held = middle
        else:
            broken = middle
    return runs, held


# Lips against sound


class Sync(NamedTuple):
    """Lags of the shown lips behind the sound at the beginning and the end of a run, by how they were found."""

    lips: str
    against: str
    first: Lag
    last: Lag

    @property
    def change(self) -> float:
        """Frames."""
        return self.last.frames - self.first.frames


def lips_against_sound(setting: Setting, run: Run) -> list[Sync]:
    """Lags between what the frames of the probe show and the sound they carry.

    The lips are read off the pictures by the landmark tracker, if there are any, and off the motion. The sound
    is taken twice: as its loudness, and as the lips that the same speech gives offline with everything known in advance
    (`quality`).
    """
    player = run.players[0]
    seen = [speech_of(player.trace.seen(), said.epoch) for probe in run.probes for said in probe]
    half = len(run.probes[0])
    offline = [
        np.array(
            [lip_gap(frame.motion) for frame in setting.head.animate(setting.portrait, said.samples, seed=setting.seed)]
        )
        for said in run.probes[0]
    ]
    lips: dict[str, list[Floats]] = {"in the motion": [s["gap"] for s in seen]}
    if run.pictures is not None:
        lips["in the pictures"] = tracked_lips(run.pictures, [len(s) for s in seen])
    sounds = {"loudness": [loudness(s["level"]) for s in seen], "lips of `quality`": 2 * offline}
    return [
        Sync(name, against, lag(curves[:half], sound[:half]), lag(curves[half:], sound[half:]))
        for name, curves in lips.items()
        for against, sound in sounds.items()
    ]


def tracked_lips(pictures: Pictures, counts: Sequence[int]) -> list[Floats]:
    """Opening (T,) of the lips on the pictures kept of each utterance, face widths."""
    opening = measures.lip_opening(track(list(pictures.all())))
    return np.split(opening, np.cumsum(counts)[:-1])
