"""The command line: `ditto animate`, `ditto doctor`, `ditto bundle verify`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ditto.errors import DittoError, InputError

if TYPE_CHECKING:
    from ditto.doctor import Check
    from ditto.portrait import Portrait
    from ditto.talking_head import TalkingHead

CALLERS_MISTAKE, OUR_MISTAKE, INTERRUPTED, TERMINATED = 2, 1, 130, 143

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One portrait and a voice become a talking head.",
)
bundles = typer.Typer(no_args_is_help=True, help="Folders of weights.")
app.add_typer(bundles, name="bundle")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def animate(
    portrait: Annotated[Path, typer.Argument(help="A picture with a face, or a portrait saved as .npz.")],
    audio: Annotated[Path, typer.Argument(help="A recording: wav, flac, mp3, m4a, ogg, the sound of a video, ...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The video to write, .mp4 or .webm.")],
    seed: Annotated[int, typer.Option(min=0, help="All randomness; the same seed gives the same video.")] = 0,
    emotion: Annotated[str, typer.Option(help="For example happy:0.6, or happy:0.3,surprise:0.2.")] = "",
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "lite",
    face: Annotated[int, typer.Option(min=0, help="Which face of the picture, the largest first.")] = 0,
    still: Annotated[bool, typer.Option("--still", help="Keep the head where it is; only the face moves.")] = False,
    max_size: Annotated[int, typer.Option(min=64, help="Longest side of the video in pixels.")] = 1280,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make PORTRAIT say AUDIO."""
    with errors_reported(as_json, debug):
        result = run_animate(portrait, audio, output, seed, emotion, bundle, face, still, max_size, quiet or as_json)
        if as_json:
            print(json.dumps(result))
        elif not quiet:
            print(
                f"{result['output']}: {result['frames']} frames, {result['duration_seconds']:.2f} s, "
                f"{result['width']} x {result['height']}; animated in {result['animate_seconds']:.2f} s, "
                f"real-time factor {result['real_time_factor']:.2f}"
            )


def run_animate(
    portrait_path: Path,
    audio_path: Path,
    output: Path,
    seed: int,
    emotion: str,
    bundle: str,
    face: int,
    still: bool,
    max_size: int,
    quiet: bool,
) -> dict[str, Any]:
    """What `ditto animate` does; gives what it reports.

    The real-time factor is the wall time from the first sample to the finished file, over the duration of the audio;
    loading the bundle and registering the face are not in it (`load_seconds`, `register_seconds`).
    """
    from rich.console import Console

    import ditto
    from ditto.audio import AudioReader
    from ditto.video import VideoWriter, check_output

    # Everything that can be refused cheaply is refused before the expensive part.
    weights = parse_emotion(emotion)
    check_output(output)
    if not portrait_path.is_file():
        raise InputError(f"a picture is wanted at {portrait_path}, there is no such file; check the name")
    for source in (portrait_path, audio_path):
        if output.exists() and source.exists() and os.path.samefile(output, source):
            raise InputError(f"the output {output} is also an input; choose another name")
    reader = AudioReader(audio_path)
    next(iter(reader))  # decodes at least the beginning

    console = Console(stderr=True, quiet=quiet)
    with console.status("loading the bundle"):
        start = time.perf_counter()
        head = ditto.load(bundle)
        loaded = time.perf_counter()
    with console.status("finding the face"):
        portrait = load_portrait(head, portrait_path, face, max_size)
        head.appearance(portrait)
        registered = time.perf_counter()
    height, width = portrait.picture.shape[:2]
    total = None if reader.duration_seconds is None else int(-(-reader.duration_seconds * 25 // 1))
    frames = head.animate(portrait, reader, seed=seed, emotion=weights, still=still)
    with VideoWriter(output, width, height, audio=audio_path) as writer:
        for frame in progress(frames, total, console):
            writer.write(frame.image)
    finished = time.perf_counter()
    if reader.damage:
        console.print(f"note: {audio_path}: {reader.damage}", style="yellow", highlight=False)
    duration = writer.frames / 25
    return {
        "output": str(output),
        "frames": writer.frames,
        "duration_seconds": duration,
        "width": width,
        "height": height,
        "seed": seed,
        "bundle": head.bundle.name,
        "load_seconds": round(loaded - start, 3),
        "register_seconds": round(registered - loaded, 3),
        "animate_seconds": round(finished - registered, 3),
        "real_time_factor": round((finished - registered) / duration, 4),
        "audio_damage": reader.damage,
    }


def load_portrait(head: TalkingHead, path: Path, face: int, max_size: int) -> Portrait:
    """A portrait saved as .npz, or a face registered from a picture."""
    if path.suffix.lower() == ".npz":
        from ditto.portrait import Portrait

        return Portrait.load(path)
    return head.register(path, face=face, max_size=max_size)


def parse_emotion(text: str) -> dict[str, float]:
    """`happy:0.6,surprise:0.2` -> weights by name.

    Raises:
        InputError: another form, an unknown name, or weights outside [0, 1] or over 1 in all.
    """
    from ditto.stream import EMOTIONS, emotion_vector

    weights: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, colon, weight = item.strip().partition(":")
        try:
            weights[name.strip().lower()] = float(weight) if colon else 1.0
        except ValueError:
            raise InputError(f"--emotion takes name:weight, e.g. happy:0.6, got {item!r}") from None
    try:
        emotion_vector(weights)
    except ValueError as error:
        raise InputError(f"--emotion takes name:weight of {', '.join(EMOTIONS)}: {error}") from None
    return weights


def progress(frames: Iterator[Any], total: int | None, console: Any) -> Iterator[Any]:
    """The frames, with a bar: stage, frames, speed, time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("animating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=console.quiet) as bar:
        task = bar.add_task("animating", total=total, speed="")
        for done, frame in enumerate(frames, 1):
            yield frame
            speed = bar.tasks[0].speed
            bar.update(task, completed=done, speed=f"{speed:.0f} frames/s" if speed else "")


@app.command()
def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Say what works on this machine, and why something does not."""
    with errors_reported(as_json, debug):
        from ditto.doctor import examine

        checks = examine()
        if as_json:
            print(json.dumps([check._asdict() for check in checks]))
        else:
            print_checks(checks)
        if not all(check.ok for check in checks if check.needed):
            raise typer.Exit(OUR_MISTAKE)


def print_checks(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        mark = "[green]ok[/]" if check.ok else "[red]no[/]" if check.needed else "[yellow]--[/]"
        detail = escape(check.detail) + (f"\n[bold]{escape(check.todo)}[/]" if check.todo else "")
        table.add_row(mark, escape(check.name), detail)
    Console().print(table)


@bundles.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="Name or folder.")] = "lite", as_json: Json = False, debug: Debug = False
) -> None:
    """Compare every file of a bundle with the SHA-256 in its bundle.json."""
    with errors_reported(as_json, debug):
        from ditto.bundle import Bundle

        opened = Bundle.open(bundle)
        opened.verify()
        files = [path.name for part in opened.parts.values() for path in part.files.values()]
        if as_json:
            print(json.dumps({"bundle": opened.name, "path": str(opened.path), "files": files, "ok": True}))
        else:
            print(f"{opened.name}: {len(files)} files are what bundle.json says ({opened.path})")


@contextmanager
def errors_reported(as_json: bool, debug: bool) -> Iterator[None]:
    """Turns what goes wrong into one line on stderr (with --json also an object on stdout) and an exit code."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))  # an exception, so that files are removed
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt:
        print("ditto: interrupted; nothing was written", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if debug:
            import traceback

            traceback.print_exc()
        ours = not isinstance(error, InputError)
        advice = "" if isinstance(error, DittoError) else " (this is a fault of ditto; --debug shows where)"
        message = " ".join(str(error).split()) or "no message"
        print(f"ditto: {type(error).__name__}: {message}{advice}", file=sys.stderr)
        if as_json:
            print(json.dumps({"error": type(error).__name__, "message": message}))
        raise typer.Exit(OUR_MISTAKE if ours else CALLERS_MISTAKE) from None


def show_version(wanted: bool) -> None:
    if wanted:
        import ditto

        print(f"ditto {ditto.__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """One portrait and a voice become a talking head."""


def main() -> NoReturn:
    """Entry point of the `ditto` command."""
    try:
        app()
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(INTERRUPTED)
    sys.exit(0)


if __name__ == "__main__":
    main()
