"""The command line: `ditto animate`, `batch`, `pack`, `serve`, `doctor`; groups `bundle`, `controls`, `motion`, `train`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ditto.app import (
    cli_batch,
    cli_bundle,
    cli_controls,
    cli_edit,
    cli_exchange,
    cli_pack,
    cli_scene,
    cli_train,
    cli_verify,
    cli_video,
)
from ditto.app.console import (
    Debug,
    Json,
    discard_output,
    errors_reported,
    open_console,
    open_streams,
    print_error,
    print_output,
    print_result,
    print_table,
    progress_of,
    show_warnings,
)
from ditto.app.options import (
    Background,
    BundleName,
    Changes,
    Codec,
    ControlsFile,
    Device,
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
from ditto.commands import EXIT_FAILURE, EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_PIPE_CLOSED, interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.app.doctor import Check
    from ditto.provenance import Label, Provenance

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One portrait and a voice become a talking head.",
)
app.command()(cli_batch.batch)
app.command()(cli_scene.faces)
app.command()(cli_pack.pack)
app.command(name="edit")(cli_edit.edit)
app.command(name="verify")(cli_verify.verify)
app.add_typer(cli_bundle.app, name="bundle")
app.add_typer(cli_controls.app, name="controls")
app.add_typer(cli_exchange.app, name="motion")  # with the commands of cli_motion
app.add_typer(cli_train.app, name="train")


@app.command()
def animate(
    portrait: Annotated[
        Path,
        typer.Argument(
            metavar="PORTRAIT",
            readable=False,
            help="A picture with a face (- for standard input), a saved portrait (.npz, .portrait), or a video of a person.",
        ),
    ],
    output: VideoOutput,
    audio: Annotated[
        Path | None,
        typer.Argument(
            metavar="AUDIO",
            readable=False,
            help="A recording: wav, flac, mp3, m4a, ogg, a video, ... (- for standard input).",
        ),
    ] = None,
    speaker: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHICH=AUDIO",
            help="In place of AUDIO, once for each face that speaks: a face as of --face, and its recording. The recordings "
            "run at the same time; who is silent listens.",
        ),
    ] = None,
    seed: Seed = 0,
    emotion: Annotated[
        str,
        typer.Option(
            help="Weights, at most 1 in all, of angry, disgust, fear, happy, neutral, sad, surprise, contempt: "
            "happy:0.6, or happy:0.3,surprise:0.2. Or portrait: the emotion that the picture shows."
        ),
    ] = "",
    download_hsemotion: Annotated[
        bool, typer.Option("--download-hsemotion", help="With --emotion portrait: get HSEmotion's weights if missing.")
    ] = False,
    style: Style = "natural",
    controls: ControlsFile = None,
    drive: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="A performance that drives the face: of `ditto motion from-video`, or a recording of Live Link Face, "
            "Audio2Face, glTF or TalkingHead.",
        ),
    ] = None,
    drive_regions: Annotated[
        str,
        typer.Option(help="What --drive moves, speech the rest: head,brows, or head:0.5,brows; everything by default."),
    ] = "",
    codec: Codec = None,
    quality: Quality = "standard",
    background: Background = None,
    bundle: BundleName = "lite",
    device: Device = "cpu",
    settings: PublishedSettings = None,
    changes: Changes = None,
    face: Face = "0",
    still: Still = False,
    max_size: MaxSize = None,
    loop: Annotated[
        str,
        typer.Option(help="Of a video: how it goes on where AUDIO is longer: pingpong (default), mirror, forward, once."),
    ] = "",
    whole_face: Annotated[
        bool, typer.Option("--whole-face", help="Of a video: brows and head move with the speech too, not lips and jaw alone.")
    ] = False,
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
    """Make PORTRAIT say AUDIO."""
    with errors_reported(as_json, debug):
        from ditto.media.footage import is_video

        provenance = parse_provenance(no_provenance, signing_certificate, signing_key)
        drawn = parse_label(label, label_corner, label_font)
        released = parse_settings(settings, changes)
        video = is_video(portrait)
        if not video and (loop or whole_face):
            raise InputError(f"expected a video with --loop or --whole-face, got {portrait}; leave them out, or give a video")
        if video:
            alone = {"--speaker": speaker, "--face": face != "0", "--drive": drive, "--still": still, "--max-size": max_size,
                     "--emotion portrait": emotion == "portrait"}  # fmt: skip
            if background is not None:
                raise InputError(
                    f"expected a picture with --background, got the video {portrait}, whose pictures are not cut out one by "
                    "one; leave the option out"
                )
            if given := [name for name, value in alone.items() if value]:
                raise InputError(f"expected a picture with {given[0]}, got the video {portrait}; leave the option out")
            if audio is None:
                raise InputError("expected a recording, got none; give AUDIO")
            result = cli_video.run_video(
                portrait, audio, output, codec, quality, seed, emotion, style, controls, bundle, device, released,
                loop or "pingpong", whole_face, provenance, drawn, quiet or as_json,
            )  # fmt: skip
        elif speaker:
            alone = {"AUDIO": audio, "--face": face != "0", "--controls": controls, "--drive": drive,
                     "--emotion portrait": emotion == "portrait"}  # fmt: skip
            if background is not None:
                raise InputError(
                    "expected --background or --speaker, got both; the alpha of several faces does not move with them: leave "
                    "one of them out"
                )
            if given := [name for name, value in alone.items() if value]:
                raise InputError(f"expected {given[0]} or --speaker, got both; leave one of them out")
            result = cli_scene.run_scene(
                portrait, speaker, output, codec, quality, seed, emotion, style, bundle, device, released, still,
                max_size, provenance, drawn, quiet or as_json,
            )  # fmt: skip
        elif audio is None:
            raise InputError("expected a recording, got none; give AUDIO, or a --speaker for each face that speaks")
        else:
            result = run_animate(
                portrait, audio, output, codec, quality, background, seed, emotion, download_hsemotion, style, controls, drive,
                drive_regions, bundle, device, released, face, still, max_size, provenance, drawn, quiet or as_json,
            )  # fmt: skip
        if as_json:
            print_result(json.dumps(result))
        elif not quiet:
            print_result(
                f"{result['output']}: {result['frames']} frames, {result['duration_seconds']:.2f} s, "
                f"{result['width']} x {result['height']}; animated in {result['animate_seconds']:.2f} s, "
                f"real-time factor {result['real_time_factor']:.2f}"
            )


def run_animate(
    portrait_path: Path,
    audio_path: Path,
    output: str,
    codec: str | None,
    quality: str,
    background: str | None,
    seed: int,
    emotion: str,
    download_hsemotion: bool,
    style: str,
    controls: Path | None,
    drive: Path | None,
    drive_regions: str,
    bundle: str,
    device: str,
    released: dict[str, Any],
    face: str,
    still: bool,
    max_size: int | None,
    provenance: Provenance | None,
    label: Label | None,
    quiet: bool,
) -> dict[str, Any]:
    """Runs `ditto animate`; returns its report.

    The real-time factor is the wall time from the first sample to the finished file, divided by the duration of the
    audio. It does not include loading the bundle and registering the face (`load_seconds`, `register_seconds`).
    """
    import ditto
    from ditto.media.audio import AudioReader
    from ditto.media.backgrounds import TRANSPARENT, check_background, laid
    from ditto.media.images import MAX_SIZE
    from ditto.media.video import check_output
    from ditto.motion.motion import FPS
    from ditto.portrait.emotion_reader import READERS, read_emotion

    # Check everything that is cheap to check before the expensive part.
    weights = {} if emotion == "portrait" else parse_emotion(emotion)
    strength = parse_style(style)
    if download_hsemotion and emotion != "portrait":
        raise InputError(f"expected --emotion portrait with --download-hsemotion, got {emotion!r}; leave one of them out")
    format = check_output(output, codec, quality, background == TRANSPARENT)
    if background is not None:
        check_background(background)
    check_picture(portrait_path, face, max_size)
    if drive is None and drive_regions:
        raise InputError(f"expected --drive with --drive-regions {drive_regions}, got none; give a performance")
    performance = None if drive is None else cli_exchange.load_performance(drive, drive_regions)
    if str(portrait_path) == str(audio_path) == "-":
        raise InputError("expected - for the picture or for the recording, got it for both; give one of them as a file")
    for source in (portrait_path, audio_path):
        with suppress(OSError):  # the output need not exist yet; a missing input is reported below
            if os.path.samefile(output, source):
                raise InputError(f"expected an output that is not an input, got the input {output}; choose another name")
    console = open_console(quiet)
    show_warnings(console)
    reader = AudioReader(audio_path if str(audio_path) != "-" else standard_input("a recording"))
    next(iter(reader))  # decodes at least the beginning
    timeline = parse_timeline(controls, reader.duration_seconds)
    provenance = provenance and provenance.made_from(portrait=portrait_path, speech=audio_path)

    with progress_of(console, "loading the bundle"):
        start = time.perf_counter()
        head = ditto.load(bundle, device=device, **released)
        interruption.check()
        loaded = time.perf_counter()
    with progress_of(console, "finding the face"):
        given = load_portrait(head, portrait_path, face, MAX_SIZE if max_size is None else max_size)
        read_by = None
        if emotion == "portrait":
            weights, read_by = read_emotion([given.crop], [given.landmarks], download=download_hsemotion)
    with progress_of(console, "preparing the portrait"):
        portrait = given if background is None else head.cut_out(given)
        head.appearance(portrait)
        registered = time.perf_counter()
    if read_by is not None:
        console.print(f"the picture shows {shown_words(weights)}, by {READERS[read_by]}")
    lay = laid(background, given.picture, portrait.alpha)
    height, width = portrait.picture.shape[:2]
    total = None if reader.duration_seconds is None else math.ceil(reader.duration_seconds * FPS)
    frames = head.animate(
        portrait, reader, seed=seed, emotion=weights, still=still, style=strength, controls=timeline, performance=performance,
        output="rgb24" if background is None else "rgba",
    )  # fmt: skip
    writer = write_frames(
        (lay(frame.image) for frame in frames), total, console, format, label, output, width, height,
        audio=reader, codec=codec, quality=quality, alpha=background == TRANSPARENT, provenance=provenance,
    )  # fmt: skip
    finished = time.perf_counter()
    duration = writer.frames / FPS
    return {
        **written(writer, output),
        "seed": seed,
        "emotion": weights,
        "emotion_read_by": read_by,
        "bundle": head.bundle.name,
        "load_seconds": round(loaded - start, 3),
        "register_seconds": round(registered - loaded, 3),
        "animate_seconds": round(finished - registered, 3),
        "real_time_factor": round((finished - registered) / duration, 4),
        "audio_damage": reader.damage,
        "signed": writer.signed,
    }


def shown_words(weights: Mapping[str, float]) -> str:
    """Weights as a person reads them, the largest first: `happy 0.55, neutral 0.45`."""
    largest = sorted(weights.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {weight:.2f}" for name, weight in largest if weight >= 0.005)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen at; all but loopback addresses need --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8400,
    token: Annotated[
        str, typer.Option(envvar="DITTO_TOKEN", help="Token that clients must send; auto makes one.", show_envvar=True)
    ] = "",
    portrait: Annotated[
        Path | None,
        typer.Option(readable=False, help="The first face of a client: a picture or a saved one (.npz, .portrait)."),
    ] = None,
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "lite",
    device: Annotated[str, typer.Option(help="Where a full bundle's networks run: cpu, cuda, cuda:1.")] = "cpu",
    settings: PublishedSettings = None,
    changes: Changes = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, help="Most sessions at once; as many as the machine holds by default.")
    ] = None,
    max_size: Annotated[int, typer.Option(min=64, help="Longest side of portraits, in pixels.")] = 640,
    certificate: Annotated[Path | None, typer.Option(readable=False, help="For https: the certificate, a PEM file.")] = None,
    key: Annotated[Path | None, typer.Option(readable=False, help="For https: the key of --certificate, a PEM file.")] = None,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(
            envvar="DITTO_ICE_SERVERS",
            help="For WebRTC across networks: stun:HOST[:PORT] or turn:USER:PASSWORD@HOST[:PORT]; may be repeated.",
        ),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(readable=False, help="A folder: every conversation is recorded into a file of it.")
    ] = None,
    client_drawing: Annotated[
        str,
        typer.Option(
            help="Portraits that clients may draw themselves: none, uploaded (theirs), or all (the server's own too). Whoever "
            "gets one can make it say anything, for ever."
        ),
    ] = "none",
    no_provenance: NoProvenance = False,
    signing_certificate: SigningCertificate = None,
    signing_key: SigningKey = None,
    label: LabelText = None,
    label_corner: LabelCorner = "bottom-right",
    label_font: LabelFont = None,
    drain: Annotated[
        float, typer.Option(min=0.0, max=86400.0, help="Seconds for which conversations may go on after SIGTERM.")
    ] = 0.0,
    debug: Debug = False,
) -> None:
    """Serve a page on which a portrait speaks, and WebRTC and a WebSocket for programs."""
    with errors_reported(False, debug):
        import ditto
        from ditto.live.server.run import Address, listen, missing_packages

        if missing := missing_packages():
            raise InputError(f"`ditto serve` needs {', '.join(missing)}; pip install 'ditto-talking-head[serve]'")
        from ditto.live.server.app import create_app
        from ditto.live.server.drawing import check_client_drawing
        from ditto.live.server.ice import parse_ice_server
        from ditto.live.server.portraits import SHIPPED
        from ditto.live.server.run import serve as run_server

        address = Address(host, port, token, certificate, key, drain)
        ice_servers = tuple(map(parse_ice_server, ice_server or []))
        check_client_drawing(client_drawing, record)
        released = parse_settings(settings, changes)
        drawn = parse_label(label, label_corner, label_font)
        provenance = None
        if record is not None:
            check_folder(record)
            provenance = parse_provenance(no_provenance, signing_certificate, signing_key)
        picture = portrait or SHIPPED
        check_picture(picture, "0", None)
        console = open_console()
        show_warnings(console)
        with listen(address) as listening:
            with progress_of(console, "loading the bundle, finding the face"):
                head = ditto.load(bundle, max_sessions=sessions, device=device, **released)
                first = load_portrait(head, picture, "0", max_size)
                head.blocking_session(first, label=drawn).close()  # prepares the portrait; raises if the machine is too slow
                interruption.check()
            app = create_app(
                head,
                first,
                token=address.token,
                max_size=max_size,
                ice_servers=ice_servers,
                record=record,
                client_drawing=client_drawing,
                provenance=provenance,
                label=drawn,
            )
            print_result(f"ditto is at {address.url_of(listening)}")
            if record is not None:
                console.print(f"Every conversation is recorded into {record}, both voices too.", highlight=False)
            if client_drawing != "none":
                console.print("Clients get portraits to draw them: whoever has one can make it say anything.", highlight=False)
            for note in address.notes:
                console.print(note, style="dim", highlight=False)
            run_server(app, address, listening)


def check_folder(folder: Path) -> None:
    """Make a folder for recordings, and check that videos can be written there. Raises OutputError."""
    from ditto.media.files import refused
    from ditto.media.video import check_output

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(folder, error) from error
    check_output(folder / "recording.mp4")


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Check what works on this machine, and say what to do about the rest."""
    with errors_reported(as_json, debug):
        from ditto.app.doctor import examine

        checks = examine()
        if as_json:
            print_output(json.dumps([check._asdict() for check in checks]))
        else:
            print_checks(checks)
        if not all(check.ok for check in checks if check.needed):
            raise typer.Exit(EXIT_FAILURE)


def print_checks(checks: list[Check]) -> None:
    """Print the checks as a table: mark, name, detail, and what to do if one failed."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]" if check.needed else "[yellow]--[/]"
        detail = escape(check.detail) + (f"\n[bold]{escape(check.todo)}[/]" if check.todo else "")
        table.add_row(mark, escape(check.name), detail)
    print_table(table)


def show_version(asked: bool) -> None:
    """Print the version and exit, if `--version` was given."""
    if asked:
        import ditto

        with errors_reported(False, False):
            print_output(f"ditto {ditto.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One portrait and a voice become a talking head."""


def main() -> NoReturn:
    """Run the command line and exit with its exit code."""
    open_streams()
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):  # before a command began
        code = EXIT_INTERRUPTED
    except SystemExit:  # Typer and rich raise it if nobody reads the help any more
        code = EXIT_PIPE_CLOSED
    except OSError as error:  # while printing the help
        print_error(f"ditto: OutputError: the help cannot be written to standard output: {error.strerror or error}")
        code = EXIT_INPUT_ERROR
    except Exception as error:
        if not hasattr(error, "format_message"):  # every usage error of Click has it, in every version of Typer
            raise
        message = error.format_message()
        if "\n" in message or not message:  # a command without arguments: its help
            error.show()  # type: ignore[attr-defined]
        else:
            context = getattr(error, "ctx", None)
            command = context.command_path if context else "ditto"
            print_error(f"ditto: UsageError: {message.rstrip('.')}; see {command} --help")
        code = EXIT_INPUT_ERROR
    discard_output()
    interruption.leave(code)
