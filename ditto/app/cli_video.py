"""`ditto animate CLIP AUDIO`: a video as the source."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditto.app.cli_motion import check_distinct
from ditto.app.console import open_console, progress_of, show_warnings
from ditto.app.options import parse_emotion, parse_style, parse_timeline
from ditto.app.pictures import check_picture, standard_input
from ditto.app.writing import write_frames, written
from ditto.commands import interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.provenance import Label, Provenance


def run_video(
    clip_path: Path,
    audio_path: Path,
    output: str,
    codec: str | None,
    quality: str,
    seed: int,
    emotion: str,
    style: str,
    controls: Path | None,
    bundle: str,
    device: str,
    released: dict[str, Any],
    loop: str,
    whole_face: bool,
    provenance: Provenance | None,
    label: Label | None,
    quiet: bool,
) -> dict[str, Any]:
    """Runs `ditto animate` with a video as PORTRAIT; returns its report, as `run_animate` does.

    Raises:
        InputError: an option that cannot be used.
    """
    import ditto
    from ditto.media.audio import AudioReader
    from ditto.media.rates import FPS
    from ditto.media.video import check_output

    weights, strength = parse_emotion(emotion), parse_style(style)
    format = check_output(output, codec, quality)
    check_picture(clip_path, "0", None)
    check_distinct(output, clip_path, audio_path)
    console = open_console(quiet)
    show_warnings(console)
    reader = AudioReader(audio_path if str(audio_path) != "-" else standard_input("a recording"))
    next(iter(reader))  # decodes at least the beginning
    timeline = parse_timeline(controls, reader.duration_seconds)
    provenance = provenance and provenance.made_from(portrait=clip_path, speech=audio_path)
    with progress_of(console, "loading the bundle"):
        start = time.perf_counter()
        head = ditto.load(bundle, device=device, **released)
        loaded = time.perf_counter()
    with progress_of(console, "following the face"):
        clip = head.read_video(clip_path, lambda frames: interruption.check())
        followed = time.perf_counter()
    try:
        frames = head.animate_video(
            clip, reader, loop=loop, whole_face=whole_face, seed=seed, emotion=weights, controls=timeline, style=strength
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    height, width = clip.tracked.size
    total = None if reader.duration_seconds is None else math.ceil(reader.duration_seconds * FPS)
    writer = write_frames(
        (frame.image for frame in frames), total, console, format, label, output, width, height,
        audio=reader, codec=codec, quality=quality, provenance=provenance,
    )  # fmt: skip
    finished = time.perf_counter()
    duration = writer.frames / FPS
    return {
        **written(writer, output),
        "seed": seed,
        "emotion": weights,
        "clip_frames": clip.frames,
        "bundle": head.bundle.name,
        "load_seconds": round(loaded - start, 3),
        "follow_seconds": round(followed - loaded, 3),
        "animate_seconds": round(finished - followed, 3),
        "real_time_factor": round((finished - followed) / duration, 4),
        "audio_damage": reader.damage,
        "signed": writer.signed,
    }
