"""Makes short recordings of many kinds in memory, with the encoders PyAV brings."""

import io
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import av
import numpy as np

LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}


class Kind(NamedTuple):
    container: str
    codec: str
    format: str
    rates: tuple[int, int] = (16000, 44100)
    channels: tuple[int, ...] = (1, 2, 6)


WITH_HEADER = {  # kinds whose beginning says that it is one
    "wav u8": Kind("wav", "pcm_u8", "u8"),
    "wav s16": Kind("wav", "pcm_s16le", "s16"),
    "wav s24": Kind("wav", "pcm_s24le", "s32"),
    "wav f32": Kind("wav", "pcm_f32le", "flt"),
    "wav f64": Kind("wav", "pcm_f64le", "dbl"),
    "wav mulaw": Kind("wav", "pcm_mulaw", "s16"),
    "flac s16": Kind("flac", "flac", "s16"),
    "flac s32": Kind("flac", "flac", "s32"),
    "mp3": Kind("mp3", "libmp3lame", "fltp", channels=(1, 2)),
    "ogg opus": Kind("ogg", "libopus", "flt", (16000, 48000)),
    "ogg flac": Kind("ogg", "flac", "s16"),
    "webm": Kind("webm", "libopus", "flt", (16000, 48000)),
    "mkv flac": Kind("matroska", "flac", "s16"),
    "mkv": Kind("matroska", "pcm_s16le", "s16"),
    "m4a": Kind("mp4", "aac", "fltp", channels=(1, 2, 8)),
    "alac": Kind("ipod", "alac", "s16p"),
    "aiff": Kind("aiff", "pcm_s16be", "s16"),
    "au": Kind("au", "pcm_s16be", "s16"),
    "caf": Kind("caf", "pcm_s16le", "s16"),
    "w64": Kind("w64", "pcm_s16le", "s16"),
    "wavpack": Kind("wv", "wavpack", "s16p"),
    "avi": Kind("avi", "pcm_s16le", "s16"),
}
FRAMES_ONLY = {  # kinds that are frames and nothing else: joined ones are one stream
    "aac": Kind("adts", "aac", "fltp"),
    "mp2": Kind("mp2", "mp2", "s16", channels=(1, 2)),
    "mpegts": Kind("mpegts", "aac", "fltp"),
}
KINDS = WITH_HEADER | FRAMES_ONLY


def tone(rate: int, seconds: float, hertz: float = 440.0) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def encode(
    kind: Kind, samples: np.ndarray, rate: int, options: dict[str, str] | None = None, gap: float = 0.0
) -> bytes:
    """A file of (C, N) samples; with a `gap`, the time stamps of the second half are that many seconds later."""
    layout = LAYOUTS[len(samples)]
    out = io.BytesIO()
    with av.open(out, "w", format=kind.container, container_options=options or {}) as container:
        stream = container.add_stream(kind.codec, rate=rate, layout=layout)
        stream.codec_context.format = kind.format
        interleaved = np.ascontiguousarray(samples.T, np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate
        fitted = av.AudioResampler(format=kind.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1024)
        position = 0
        for piece in [*fitted.resample(frame), *fitted.resample(None)]:
            piece.pts, piece.time_base = position, Fraction(1, rate)
            if position >= samples.shape[1] / 2:
                piece.pts += round(gap * rate)
            position += piece.samples
            for packet in stream.encode(piece):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return out.getvalue()


@cache
def recording(name: str, rate: int, channels: int, hertz: float = 440.0, seconds: float = 0.2) -> bytes:
    return encode(KINDS[name], np.tile(tone(rate, seconds, hertz), (channels, 1)), rate)
