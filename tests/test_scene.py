"""Scenes: several faces of one picture, each with its own recording."""

import asyncio
from pathlib import Path

import numpy as np
import pytest
from actors import PATIENT

import ditto
from ditto.errors import AudioError, NoFaceError, SessionError
from ditto.live import Frame
from ditto.media.audio import read_audio
from ditto.media.images import read_picture
from ditto.media.joining import write_mixed
from ditto.media.rates import SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.scene import LEAD_FRAMES, compose, turns_of

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def head():
    return ditto.load("lite", max_sessions=4)


@pytest.fixture(scope="module")
def speech():
    return read_audio(EXAMPLES / "speech.flac")[8000:40000]


@pytest.fixture(scope="module")
def portraits(head):
    single = read_picture(EXAMPLES / "portrait.jpg", 256)[0]
    return head.register_faces(np.concatenate([single, single[:, ::-1]], axis=1))


@pytest.fixture(scope="module")
def alternating(speech):
    """Two recordings of one length: first one speaks, then the other."""
    quiet = np.zeros(len(speech) + SAMPLE_RATE, np.float32)
    return np.concatenate([speech, quiet]), np.concatenate([quiet, speech])


@pytest.fixture(scope="module")
def frames(head, portraits, alternating):
    return list(head.animate_scene([ditto.Speaker(p, a) for p, a in zip(portraits, alternating, strict=True)], seed=3))


def mouths(portraits, frame):
    """The pixels of each face's mouth."""
    found = []
    for portrait in portraits:
        to_picture = portrait.crop_to_picture
        points = portrait.landmarks[[61, 291, 0, 17], :2] @ to_picture[:2, :2].T + to_picture[:2, 2]
        low, high = points.min(0).astype(int) - 2, points.max(0).astype(int) + 8
        found.append(frame.image[low[1] : high[1], low[0] : high[0]].astype(int))
    return found


def test_each_face_says_its_own_recording(portraits, frames, alternating):
    assert len(frames) == -(-len(alternating[0]) // SAMPLES_PER_FRAME)
    moved = np.zeros((2, len(frames)))
    for number in range(1, len(frames)):
        pairs = zip(mouths(portraits, frames[number]), mouths(portraits, frames[number - 1]), strict=True)
        moved[:, number] = [np.abs(now - before).mean() for now, before in pairs]
    spoken = 2 * SAMPLE_RATE // SAMPLES_PER_FRAME
    first, second = slice(5, spoken - 5), slice(len(frames) - spoken + 5, len(frames))
    assert moved[0, first].mean() > 2 * moved[1, first].mean()
    assert moved[1, second].mean() > 2 * moved[0, second].mean()


def test_a_frame_carries_the_sum_of_the_sound(frames, alternating):
    heard = np.concatenate([frame.audio for frame in frames])
    whole = alternating[0] + alternating[1]
    assert np.allclose(heard[: len(whole)], whole) and not heard[len(whole) :].any()


def test_the_same_seed_gives_the_same_frames(head, portraits, alternating, frames):
    speakers = [ditto.Speaker(p, a) for p, a in zip(portraits, alternating, strict=True)]
    for number, again in enumerate(head.animate_scene(speakers, seed=3)):
        assert (again.image == frames[number].image).all()
        if number == 12:
            break


def test_a_face_that_only_listens_reacts_to_the_other(head, portraits, speech):
    """Its motion is another than without a voice to listen to."""
    sound = np.concatenate([speech, np.zeros(2 * SAMPLE_RATE, np.float32)])

    def listener(sound):
        frames = head.animate_scene([ditto.Speaker(portraits[0], sound), ditto.Speaker(portraits[1])])
        return [frame.image[:, 256:] for frame in frames]

    with_voice, without = listener(sound), listener(np.zeros_like(sound))
    assert any((one != other).any() for one, other in zip(with_voice, without, strict=True))


def test_turns_of_a_recording(speech):
    pause = np.zeros(3 * SAMPLE_RATE, np.float32)
    turns = turns_of(np.concatenate([pause, speech, pause, speech]))
    assert len(turns) == 2 and turns[0].end < turns[1].first
    assert abs(turns[0].first - (75 - LEAD_FRAMES)) < 8
    assert turns_of(pause) == []


def test_pictures_that_changed_at_different_places_are_joined():
    rest = np.full((4, 6, 3), 100, np.uint8)
    one, other = rest.copy(), rest.copy()
    one[:, :2], other[:, 3:] = 20, 250
    expected = rest.copy()
    expected[:, :2], expected[:, 3:] = 20, 250
    assert (compose(rest, [one, other]) == expected).all() and (compose(rest, [rest, rest]) == rest).all()


def test_bad_scenes(head, portraits, speech):
    other = head.register(EXAMPLES / "portrait.jpg", max_size=200)
    for speakers, error, words in [
        ([], ValueError, "expected one speaker or more, got none"),
        ([ditto.Speaker(portraits[0]), ditto.Speaker(portraits[1])], AudioError, "expected a recording for one speaker"),
        ([ditto.Speaker(portraits[0], speech), ditto.Speaker(portraits[0])], ValueError, "got speakers 0 and 1 for one"),
        ([ditto.Speaker(portraits[0], speech), ditto.Speaker(other)], ValueError, "got different pictures"),
        ([ditto.Speaker(portraits[0], "missing.wav")], AudioError, "missing.wav"),
        ([ditto.Speaker(portraits[0], speech, emotion={"glad": 1})], ValueError, "glad"),
    ]:
        with pytest.raises(error, match=words):
            head.animate_scene(speakers)
    for output in ("motion", "jpeg"):
        with pytest.raises(ValueError, match=f"expected an output of rgb24, .* for a scene, got '{output}'"):
            head.scene(portraits, output=output)
    with pytest.raises(NoFaceError):
        head.register_faces(np.full((300, 300, 3), 90, np.uint8))


def test_the_sound_of_a_scene_is_the_sum(tmp_path, speech):
    import wave

    for name, samples in (("a", speech), ("b", speech[:16000])):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes((samples * 16000).astype("<i2").tobytes())
    write_mixed([tmp_path / "a.wav", tmp_path / "b.wav"], 50, tmp_path / "both.wav")
    mixed, one = read_audio(tmp_path / "both.wav"), read_audio(tmp_path / "a.wav")
    assert len(mixed) == 50 * SAMPLES_PER_FRAME
    assert np.abs(mixed[200:15000] - 2 * one[200:15000]).max() < 0.02
    assert np.abs(mixed[17000:31000] - one[17000:31000]).max() < 0.01


def test_a_live_scene(head, portraits, speech):
    async def talk():
        async with head.scene(portraits, seed=5, output="rgba") as scene:
            await scene.push(0, speech[:12800])
            await scene.flush(0)
            seen = []
            async for frame in scene:
                seen.append(frame)
                if any(speaker == 0 for speaker, _ in frame.ended):
                    break
            with pytest.raises(SessionError, match="expected a speaker from 0 to 1, got 2"):
                await scene.push(2, speech)
            return seen

    seen = asyncio.run(asyncio.wait_for(talk(), PATIENT))
    assert [frame.index for frame in seen] == list(range(len(seen)))
    spoken = [frame for frame in seen if frame.frames[0].kind == "speech"]
    assert len(spoken) == 20 and all(frame.frames[1].kind == "idle" for frame in seen)
    assert all(isinstance(one, Frame) for frame in seen for one in frame.frames)
    assert np.allclose(np.concatenate([frame.audio for frame in spoken]), speech[:12800], atol=1e-6)
    last = spoken[-1]
    assert last.image.shape == (256, 512, 4)
    assert (last.image[:, :256, :3] == last.frames[0].image[:, :256]).mean() > 0.999
    assert (last.image[:, 256:, :3] == last.frames[1].image[:, 256:]).mean() > 0.999


def test_a_cancelled_read_keeps_the_faces_in_step(head, portraits):
    async def read():
        async with head.scene(portraits) as scene:
            for _ in range(4):
                try:
                    await asyncio.wait_for(scene.__anext__(), 0.01)
                except asyncio.TimeoutError:
                    continue
            return [await scene.__anext__() for _ in range(5)]

    for frame in asyncio.run(asyncio.wait_for(read(), PATIENT)):
        assert frame.frames[0].index == frame.frames[1].index
