"""`ditto motion extract | edit | join | render`: takes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditto.app.console import Debug, Json, errors_reported, open_console, print_result, progress_of, show_warnings
from ditto.app.options import (
    Background,
    BundleName,
    Changes,
    Codec,
    ControlsFile,
    Device,
    Emotion,
    Face,
    LabelCorner,
    LabelFont,
    LabelText,
    MaxSize,
    NoProvenance,
    PublishedSettings,
    Quality,
    Quiet,
    Seed,
    SigningCertificate,
    SigningKey,
    Still,
    Style,
    VideoOutput,
    parse_emotion,
    parse_label,
    parse_provenance,
    parse_settings,
    parse_style,
    parse_timeline,
)
from ditto.app.pictures import check_picture, load_portrait, standard_input
from ditto.app.writing import write_frames, written
from ditto.commands import interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.provenance import Label, Provenance
    from ditto.take import Take

app = typer.Typer(no_args_is_help=True, help="Motion without pictures: takes, to edit and to render again.")

Picture = Annotated[
    Path,
    typer.Argument(
        metavar="PORTRAIT",
        readable=False,
        help="A picture with a face (- for standard input), or a saved one (.npz, .portrait).",
    ),
]
TakeFile = Annotated[Path, typer.Argument(metavar="TAKE", readable=False, help="A take that `ditto motion` wrote.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The take to write; an existing file is replaced.")]


@app.command()
def extract(
    portrait: Picture,
    audio: Annotated[
        Path,
        typer.Argument(
            metavar="AUDIO", readable=False, help="A recording: wav, flac, mp3, a video, ... (- for standard input)."
        ),
    ],
    output: Output,
    seed: Seed = 0,
    emotion: Emotion = "",
    style: Style = "natural",
    controls: ControlsFile = None,
    bundle: BundleName = "lite",
    device: Device = "cpu",
    settings: PublishedSettings = None,
    changes: Changes = None,
    face: Face = "0",
    still: Still = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Generate the motion with which PORTRAIT says AUDIO, as a take."""
    with errors_reported(as_json, debug):
        import ditto
        from ditto.media.audio import AudioReader

        weights, strength = parse_emotion(emotion), parse_style(style)
        released = parse_settings(settings, changes)
        check_place(output, portrait, audio, *given(controls))
        check_picture(portrait, face, None)
        if str(portrait) == str(audio) == "-":
            raise InputError("expected - for the picture or for the recording, got it for both; give one of them as a file")
        console = open_console(as_json)
        show_warnings(console)
        reader = AudioReader(audio if str(audio) != "-" else standard_input("a recording"))
        timeline = parse_timeline(controls, reader.duration_seconds)
        with progress_of(console, "loading the bundle"):
            head = ditto.load(bundle, device=device, **released)
        with progress_of(console, "finding the face"):
            registered = load_portrait(head, portrait, face, 640)
        interruption.check()
        with progress_of(console, "generating the motion"):
            take = head.take(
                registered, reader, seed=seed, emotion=weights, still=still, controls=timeline, style=strength
            )
        interruption.check()
        save(take, output, as_json)


@app.command()
def edit(
    take: TakeFile,
    output: Output,
    controls: ControlsFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the earlier edits of the take.")] = False,
    start: Annotated[float, typer.Option(help="Cut: keep what comes after so many seconds of TAKE.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Cut: keep what comes before so many seconds of TAKE.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Edit a take over time, then cut it. The motion stays as it was generated; edits show when it is rendered."""
    with errors_reported(as_json, debug):
        from ditto.controls.timeline import Timeline
        from ditto.take import Take

        check_place(output, take, *given(controls))
        show_warnings(open_console(as_json))
        opened = Take.load(take)
        timeline = parse_timeline(controls, opened.seconds)
        if timeline is None and not replace and start == 0.0 and end is None:
            raise InputError("expected --controls, --replace, --start or --end, got none of them; say what to change")
        try:
            edited = opened.edit(timeline or Timeline(), replace_others=replace).cut(start, end)
        except ValueError as error:
            raise InputError(f"{take}: {error}") from None
        save(edited, output, as_json)


@app.command()
def join(
    takes: Annotated[list[Path], typer.Argument(metavar="TAKE...", readable=False, help="Takes, in order.")],
    output: Output,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Join takes one after another; motion and sound go over without a jump."""
    with errors_reported(as_json, debug):
        from ditto.take import Take

        check_place(output, *takes)
        first, *others = [Take.load(take) for take in takes]
        try:
            joined = first.join(*others)
        except ValueError as error:
            raise InputError(str(error)) from None
        save(joined, output, as_json)


@app.command()
def render(
    portrait: Picture,
    take: TakeFile,
    output: VideoOutput,
    audio: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="The recording, if it has moved or changed; once for each recording of a joined take.",
        ),
    ] = None,
    codec: Codec = None,
    quality: Quality = "standard",
    background: Background = None,
    bundle: BundleName = "lite",
    device: Device = "cpu",
    settings: PublishedSettings = None,
    changes: Changes = None,
    face: Face = "0",
    max_size: MaxSize = None,
    no_provenance: NoProvenance = False,
    signing_certificate: SigningCertificate = None,
    signing_key: SigningKey = None,
    label: LabelText = None,
    label_corner: LabelCorner = "bottom-right",
    label_font: LabelFont = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw PORTRAIT with the motion of a take; nothing is generated again."""
    with errors_reported(as_json, debug):
        result = run_render(
            portrait, take, output, audio or [], codec, quality, background, bundle, device, parse_settings(settings, changes),
            face, max_size, parse_provenance(no_provenance, signing_certificate, signing_key),
            parse_label(label, label_corner, label_font), quiet or as_json,
        )  # fmt: skip
        if as_json:
            print_result(json.dumps(result))
        elif not quiet:
            print_result(
                f"{output}: {result['frames']} frames, {result['duration_seconds']:.2f} s, {result['width']} x "
                f"{result['height']}; rendered in {result['render_seconds']:.2f} s"
            )


def run_render(
    portrait_path: Path,
    take_path: Path,
    output: str,
    audio: list[Path],
    codec: str | None,
    quality: str,
    background: str | None,
    bundle: str,
    device: str,
    released: dict[str, Any],
    face: str,
    max_size: int | None,
    provenance: Provenance | None,
    label: Label | None,
    quiet: bool,
) -> dict[str, Any]:
    """Runs `ditto motion render`; returns its report."""
    import ditto
    from ditto.media.backgrounds import TRANSPARENT, check_background, laid
    from ditto.media.files import temporary_files
    from ditto.media.images import MAX_SIZE
    from ditto.media.video import check_output
    from ditto.take import Take, TakeSound

    format = check_output(output, codec, quality, background == TRANSPARENT)
    if background is not None:
        check_background(background)
    check_distinct(output, portrait_path, take_path, *audio)
    check_picture(portrait_path, face, max_size)
    take = Take.load(take_path)
    sound = TakeSound(take, audio or None)
    console = open_console(quiet)
    show_warnings(console)
    with progress_of(console, "loading the bundle"):
        head = ditto.load(bundle, device=device, **released)
        take.check_bundle(head.bundle.id)
    with progress_of(console, "finding the face"):
        given = load_portrait(head, portrait_path, face, MAX_SIZE if max_size is None else max_size)
        portrait = given if background is None else head.cut_out(given)
        head.appearance(portrait)
    lay = laid(background, given.picture, portrait.alpha)
    if provenance is not None:
        speech = {"speech": sound.whole} if isinstance(sound.whole, (str, Path)) else {}
        provenance = provenance.made_from(portrait=portrait_path, take=take_path, **speech)
    started = time.perf_counter()
    height, width = portrait.picture.shape[:2]
    with ExitStack() as stack:
        track = sound.whole
        if track is None:
            with temporary_files():
                track = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ditto."))) / "sound.wav"
                sound.write(track)
        frames = head.render(portrait, take, audio=audio or None, output="rgb24" if background is None else "rgba")
        writer = write_frames(
            (lay(frame.image) for frame in frames), take.frames, console, format, label, output, width, height,
            audio=track, codec=codec, quality=quality, alpha=background == TRANSPARENT, provenance=provenance,
        )  # fmt: skip
    return {
        **written(writer, output),
        "bundle": head.bundle.name,
        "render_seconds": round(time.perf_counter() - started, 3),
        "signed": writer.signed,
    }


def given(path: Path | None) -> list[Path]:
    """The file of an option as a list; none if the option is not given."""
    return [] if path is None else [path]


def check_place(output: Path, *inputs: Path) -> None:
    """Check that a file can be written there and is none of the inputs, before any work is done.

    Raises:
        OutputError: it cannot be written.
        InputError: it is an input.
    """
    from ditto.media.files import check_writable

    check_distinct(output, *inputs)
    check_writable(output)


def check_distinct(output: str | Path, *inputs: Path) -> None:
    """Raise InputError if an output is one of the inputs."""
    for source in inputs:
        with suppress(OSError, ValueError):  # the output need not exist yet; its reader reports a missing input
            if os.path.samefile(output, source):
                raise InputError(f"expected an output that is not an input, got the input {output}; choose another name")


def save(take: Take, output: Path, as_json: bool) -> None:
    """Write a take and report it."""
    take.save(output)
    if as_json:
        report = {
            "output": str(output),
            "frames": take.frames,
            "duration_seconds": take.seconds,
            "clips": len(take.clips),
            "bundle": take.bundle,
        }
        print_result(json.dumps(report))
    else:
        clips = "1 clip" if len(take.clips) == 1 else f"{len(take.clips)} clips"
        print_result(f"{output}: {take.frames} frames, {take.seconds:.2f} s, {clips}")
