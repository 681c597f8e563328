"""What the adapters share: the playout clock, and sound as frameworks carry it. Needs none of the frameworks."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ditto.errors import AudioError
from ditto.live.adapters.pacing import LEAD_SECONDS, Pacer, mono, pcm16

SPEECH, IDLE = SimpleNamespace(kind="speech"), SimpleNamespace(kind="idle")


def handed_on(frames, late_seconds=0.0):
    """When each frame is handed on, and when the last is over, by a clock that only sleeping moves.

    "drop": the last one was not handed on after all. "clear": what was handed on is gone. The third comes late.
    """
    now, times = [100.0], []

    async def sleep(seconds):
        now[0] += max(0.0, seconds)

    async def play():
        pacer = Pacer(lambda: now[0], sleep)
        for number, frame in enumerate(frames):
            now[0] += late_seconds if number == 2 else 0.0
            if isinstance(frame, str):
                getattr(pacer, frame)()
            else:
                await pacer.wait(frame)
                times.append(round(now[0] - 100, 3))
        await pacer.wait_for_end()

    asyncio.run(play())
    return times, round(now[0] - 100, 3)


def test_speech_is_two_frames_ahead_of_its_playout_and_silence_never():
    assert LEAD_SECONDS == 0.08
    assert handed_on([SPEECH] * 5) == ([0, 0, 0, 0.04, 0.08], 0.2)
    assert handed_on([IDLE] * 4) == ([0, 0.04, 0.08, 0.12], 0.16)
    assert handed_on([IDLE, IDLE, SPEECH, SPEECH, SPEECH, IDLE]) == ([0, 0.04, 0.04, 0.04, 0.08, 0.2], 0.24)


def test_a_late_frame_delays_the_following_and_dropped_speech_frees_its_time():
    assert handed_on([SPEECH] * 4, late_seconds=0.5) == ([0, 0, 0.5, 0.5], 0.58)
    assert handed_on([SPEECH, SPEECH, "clear", IDLE]) == ([0, 0, 0], 0.04)
    assert handed_on([SPEECH, SPEECH, "drop", IDLE]) == ([0, 0, 0.04], 0.08)


def test_channels_are_averaged_and_half_samples_refused():
    stereo = np.array([[100, 300], [-32768, -32768], [32767, 32767]], "<i2")
    np.testing.assert_array_equal(mono(stereo.tobytes(), 2) * 32768, [200, -32768, 32767])
    assert mono(b"", 1).shape == (0,)
    for data, channels in ((b"abc", 1), (b"abcd12", 2), (b"ab", 0)):
        with pytest.raises(AudioError, match=f"multiple of .* bytes, got {len(data)}"):
            mono(data, channels)


@pytest.mark.parametrize("channels", [1, 2])
def test_the_bytes_of_a_sound_file_are_refused(channels):
    for head in (b"RIFF\x24\x08\0\0WAVEfmt ", b"OggS\0\2\0\0\0\0\0\0\0\0\0\0", b"ID3\4\0\0\0\0\0\0\0\0"):
        with pytest.raises(AudioError, match="expected samples, got the bytes of a file"):
            mono(head + bytes(400), channels)


def test_sound_is_unchanged():
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype("<i2")
    assert pcm16(mono(samples.tobytes(), 1)) == samples.tobytes()
    assert np.frombuffer(pcm16(np.array([2, -2], np.float32)), "<i2").tolist() == [32767, -32768]


@pytest.mark.parametrize(("adapter", "package"), [("livekit", "livekit-agents"), ("pipecat", "pipecat-ai")])
def test_a_missing_package_is_named(adapter, package):
    code = f"import sys; sys.modules['{adapter}'] = None; import ditto.live.adapters.{adapter}"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert failed.returncode == 1 and f"needs {package}; pip install" in failed.stderr
