"""`ditto motion export | convert | from-video | visemes | subtitles`: motion of and for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditto.app.cli_motion import TakeFile, check_place
from ditto.app.cli_motion import app as app
from ditto.app.console import Debug, Json, errors_reported, open_console, print_result, progress_of, show_warnings
from ditto.app.options import BundleName, Device, Face
from ditto.app.pictures import check_picture, load_portrait
from ditto.commands import interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.controls.driving import Performance
    from ditto.exchange import BlendshapeTrack

FORMATS_HELP = "live-link, a2f-json, a2f-csv, gltf, talkinghead; by the file's name unless given."
FileFormat = Annotated[str | None, typer.Option("--format", metavar="NAME", help=f"Of OUTPUT: {FORMATS_HELP}")]
Rate = Annotated[
    float | None, typer.Option("--fps", min=1.0, max=240.0, help="Frames a second; those of the source unless given.")
]
AnimationOutput = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="The file to write: .csv, .json, .gltf, .glb, or .safetensors; an existing one is replaced."
    ),
]


@app.command()
def export(
    take: TakeFile,
    output: AnimationOutput,
    format: FileFormat = None,
    fps: Rate = None,
    portrait: Annotated[
        Path | None,
        typer.Option(readable=False, help="The picture, or saved portrait, that the take is meant for; `full` needs it."),
    ] = None,
    bundle: BundleName = "lite",
    device: Device = "cpu",
    face: Face = "0",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a take with its edits as blendshapes for another program: Unreal, Maya, Blender, a browser."""
    with errors_reported(as_json, debug):
        from ditto.exchange import BlendshapeTrack

        check_output(output, format, take, *([] if portrait is None else [portrait]))
        values, space = motion_of_take(take, portrait, bundle, device, face, as_json)
        save_track(BlendshapeTrack.from_head_values(values, space), output, format, fps, as_json)


def motion_of_take(
    path: Path, portrait_path: Path | None, bundle: str, device: str, face: str, quiet: bool
) -> tuple[Any, Any]:
    """Head values (N, 70) of the frames of a take, after its edits, and their motion space.

    Raises:
        InputError: the bundle needs a portrait, and none is given; or it has no explicit motion.
    """
    import numpy as np

    import ditto
    from ditto.controls.timeline import MIDDLE, View
    from ditto.performer import Draw
    from ditto.row_performer import RowPerformer
    from ditto.take import Take

    if portrait_path is not None:
        check_picture(portrait_path, face, None)
    take = Take.load(path)
    console = open_console(quiet)
    show_warnings(console)
    with progress_of(console, "loading the bundle"):
        head = ditto.load(bundle, device=device)
        take.check_bundle(head.bundle.id)
    if not isinstance(head.performer, RowPerformer):
        raise InputError(f"expected a bundle with explicit motion, got {bundle}; give another with --bundle")
    performer = head.performer.motion_only()
    space = performer.motion_space
    if portrait_path is None and space.name != "lite":
        raise InputError(f"expected --portrait with a take of {space.name}, got none; give the picture that it is meant for")
    with progress_of(console, "finding the face"):
        portrait: Any = None if portrait_path is None else load_portrait(head, portrait_path, face, 640)
    shown: Any = performer.face(performer.prepare(portrait), take.clips[0].seed)
    motions = []
    for shot, edits in take.shots(MIDDLE if portrait is None else View.of(portrait)):
        interruption.check()
        drawn = performer.draw([Draw(shown, shot, edits)])[0]
        shown = drawn.face
        assert drawn.motion is not None
        motions.append(np.asarray(drawn.motion))
    return space.to_head(np.stack(motions), portrait), space


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", readable=False, help="A recording of another program, or a performance of from-video."
        ),
    ],
    output: AnimationOutput,
    format: FileFormat = None,
    source_format: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help=f"Of SOURCE: {FORMATS_HELP}")
    ] = None,
    fps: Rate = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write face animation of one program for another."""
    with errors_reported(as_json, debug):
        from ditto import exchange
        from ditto.exchange import performance

        check_output(output, format, source)
        check_format("--from", source_format)
        show_warnings(open_console(as_json))
        if source_format is None and performance.is_performance(source):
            track = performance.track_of(performance.read(source))
        else:
            track = exchange.read(source, source_format)
        save_track(track, output, format, fps, as_json)


@app.command("from-video")
def from_video(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", readable=False, help="A video of one face.")],
    output: AnimationOutput,
    format: FileFormat = None,
    fps: Rate = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Track the face of a video: a performance (.safetensors) that drives a portrait, or blendshapes for another program."""
    with errors_reported(as_json, debug):
        from ditto.exchange import FORMATS, performance
        from ditto.exchange.from_video import performance_of_video

        as_performance = output.suffix.lower() == performance.SUFFIX and format is None
        known = [performance.SUFFIX, *sorted({suffix for found in FORMATS.values() for suffix in found.suffixes})]
        if format is None and output.suffix.lower() not in known:
            raise InputError(f"expected an output that ends in {', '.join(known)}, got {output}; choose another name")
        if as_performance:
            check_place(output, clip)
        else:
            check_output(output, format, clip)
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "tracking the face") as status:

            def report(frames: int) -> None:
                interruption.check()
                if frames % 25 == 0:
                    status.update(f"tracking the face: {frames // 25} s")

            tracked, lost = performance_of_video(clip, report=report)
        if not as_json:
            for stretch in lost:
                console.print(
                    f"note: no face from {stretch.start:.2f} to {stretch.end:.2f} s; the last one is held and fades",
                    style="yellow", highlight=False, markup=False,
                )  # fmt: skip
        about = {"clip": clip.name, "lost_seconds": [[stretch.start, stretch.end] for stretch in lost]}
        if as_performance:
            performance.write(tracked, output, about)
            report_file(output, len(tracked.values), 25.0, as_json, about)
        else:
            save_track(performance.track_of(tracked), output, format, fps, as_json, about)


@app.command()
def visemes(
    audio: Annotated[
        Path, typer.Argument(metavar="AUDIO", readable=False, help="A recording: wav, flac, mp3, a video, ...")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write, .json or .vtt; an existing one is replaced.")
    ],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write Oculus's visemes of a recording with their times, as JSON or WebVTT."""
    with errors_reported(as_json, debug):
        from ditto.bundle import Bundle
        from ditto.exchange.visemes import write_json, write_webvtt
        from ditto.lite.speech_encoder import SpeechEncoder
        from ditto.lite.visemes import visemes_of
        from ditto.media.audio import AudioReader

        writers = {".json": write_json, ".vtt": write_webvtt}
        if output.suffix.lower() not in writers:
            raise InputError(f"expected an output that ends in .json or .vtt, got {output}; choose another name")
        check_place(output, audio)
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "listening"):
            encoder = SpeechEncoder(Bundle.open("lite").path)
            found = visemes_of(encoder, AudioReader(audio), interruption.check)
        writers[output.suffix.lower()](found, output)
        seconds = found[-1].end if found else 0.0
        if as_json:
            print_result(json.dumps({"output": str(output), "visemes": len(found), "duration_seconds": seconds}))
        else:
            print_result(f"{output}: {len(found)} visemes, {seconds:.2f} s")


@app.command()
def subtitles(
    audio: Annotated[
        Path, typer.Argument(metavar="AUDIO", readable=False, help="A recording: wav, flac, mp3, a video, ...")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="The file to write: .vtt, .srt, or .json with a time for each word; an existing one is replaced.",
        ),
    ],
    text: Annotated[
        Path, typer.Option(readable=False, help="What the recording says, word for word, in UTF-8; a line begins a subtitle.")
    ],
    language: Annotated[str, typer.Option(help="Of the text: a language of espeak-ng, which has to be installed.")] = "en-us",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write subtitles of a recording from its text: ditto finds when each word is said."""
    with errors_reported(as_json, debug):
        from ditto.bundle import Bundle
        from ditto.exchange.subtitles import write_json, write_subrip, write_webvtt
        from ditto.lite.alignment import words_of
        from ditto.lite.speech_encoder import SpeechEncoder
        from ditto.lite.visemes import phones_heard
        from ditto.media.audio import AudioReader
        from ditto.media.files import Source

        writers = {".vtt": write_webvtt, ".srt": write_subrip, ".json": write_json}
        if output.suffix.lower() not in writers:
            raise InputError(f"expected an output that ends in .vtt, .srt or .json, got {output}; choose another name")
        check_place(output, audio, text)
        try:
            said = Source(text, "a text", InputError).read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise InputError(f"expected text in UTF-8, got other bytes in {text}; save it as UTF-8") from None
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "listening"):
            encoder = SpeechEncoder(Bundle.open("lite").path)
            probabilities, seconds = phones_heard(encoder, AudioReader(audio), interruption.check)
            found = words_of(probabilities, said, language)
        writers[output.suffix.lower()](found, output)
        if as_json:
            print_result(json.dumps({"output": str(output), "words": len(found), "duration_seconds": seconds}))
        else:
            print_result(f"{output}: {len(found)} words, {seconds:.2f} s")


def check_format(option: str, name: str | None) -> None:
    """Raises InputError for a format that there is not."""
    from ditto.exchange import FORMATS

    if name is not None and name not in FORMATS:
        raise InputError(f"expected {option} out of {', '.join(FORMATS)}, got {name!r}; give one of them")


def check_output(output: Path, format: str | None, *inputs: Path) -> None:
    """Raises InputError or OutputError for a file that cannot be written, before any work is done."""
    from ditto.exchange import format_of

    check_format("--format", format)
    if format is None:
        format_of(output)
    check_place(output, *inputs)


def save_track(
    track: BlendshapeTrack,
    output: Path,
    format: str | None,
    fps: float | None,
    as_json: bool,
    about: dict[str, Any] | None = None,
) -> None:
    """Write a track and report it."""
    from ditto import exchange

    written = track if fps is None else track.resampled(fps)
    exchange.write(written, output, format)
    report_file(output, len(written), written.fps, as_json, {"format": format or exchange.format_of(output)} | (about or {}))


def report_file(output: Path, frames: int, fps: float, as_json: bool, about: dict[str, Any]) -> None:
    """Report a file that was written."""
    if as_json:
        print_result(json.dumps({"output": str(output), "frames": frames, "fps": round(fps, 3)} | about))
    else:
        print_result(f"{output}: {frames} frames, {frames / fps:.2f} s, {fps:.5g} a second")


def load_performance(path: Path, regions: str) -> Performance:
    """The performance of `--drive`, with the regions of `--drive-regions`: `head,brows`, or `head:0.5,brows`.

    Raises:
        InputError: the file cannot be used, or an unknown region, a share out of range, a region twice.
    """
    from ditto.exchange.performance import read

    shares: dict[str, float] = {}
    for item in filter(None, regions.split(",")):
        name, colon, share = item.strip().partition(":")
        if name in shares:
            raise InputError(f"expected each region once in --drive-regions, got {name} twice; leave one out")
        try:
            shares[name] = float(share) if colon else 1.0
        except ValueError:
            raise InputError(f"expected region:share in --drive-regions, got {item!r}; write it as head:0.5") from None
    if regions and not shares:
        raise InputError(f"expected regions in --drive-regions, got {regions!r}; write them as head,brows")
    try:
        return read(path, shares or None)
    except ValueError as error:
        raise InputError(f"--drive-regions: {error}") from None
