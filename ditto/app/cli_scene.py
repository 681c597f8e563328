"""`ditto faces`, and `ditto animate --speaker`: several faces of one picture."""

from __future__ import annotations

import json
import math
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ditto.app.cli_motion import check_distinct
from ditto.app.console import (
    Debug,
    Json,
    errors_reported,
    open_console,
    print_result,
    print_table,
    progress_of,
    show_warnings,
)
from ditto.app.options import parse_emotion, parse_style
from ditto.app.pictures import SUFFIXES, check_picture, check_sheet, parse_face, write_sheet
from ditto.app.writing import write_frames, written
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.provenance import Label, Provenance


def run_scene(
    picture: Path,
    speakers: list[str],
    output: str,
    codec: str | None,
    quality: str,
    seed: int,
    emotion: str,
    style: str,
    bundle: str,
    device: str,
    released: dict[str, Any],
    still: bool,
    max_size: int | None,
    provenance: Provenance | None,
    label: Label | None,
    quiet: bool,
) -> dict[str, Any]:
    """Runs `ditto animate --speaker`; returns its report, as `run_animate` does.

    Raises:
        InputError: an option that cannot be used.
    """
    import ditto
    from ditto.media.audio import read_audio
    from ditto.media.files import temporary_files
    from ditto.media.images import MAX_SIZE
    from ditto.media.joining import write_mixed
    from ditto.media.rates import FPS, SAMPLES_PER_FRAME
    from ditto.media.video import check_output
    from ditto.portrait.portrait import is_saved

    format = check_output(output, codec, quality)
    weights, strength = parse_emotion(emotion), parse_style(style)
    faces, recordings = [], []
    for text in speakers:
        face, equals, recording = text.partition("=")
        if not face.replace(",", "").replace(".", "").strip().isdecimal():  # a picture, whose name may have a "="
            face, equals, recording = text.rpartition("=")
        if not equals or not face or not recording:
            raise InputError(f"expected --speaker as WHICH=AUDIO, got {text!r}; write it as 0=speech.wav")
        if recording == "-":
            raise InputError("expected the name of a recording with --speaker, got - (standard input); give a file")
        faces.append(parse_face(face, "WHICH of --speaker"))
        recordings.append(Path(recording))
    if is_saved(picture) or str(picture) == "-":
        raise InputError(f"expected a picture file with --speaker, got {picture}; give the picture with all faces")
    check_picture(picture, "0", max_size)
    check_distinct(output, picture, *recordings)
    console = open_console(quiet)
    show_warnings(console)
    if provenance is not None:
        speech = {f"speech {number}": recording for number, recording in enumerate(recordings)}
        provenance = provenance.made_from(portrait=picture, **speech)
    sounds = [read_audio(recording) for recording in recordings]
    with progress_of(console, "loading the bundle"):
        start = time.perf_counter()
        head = ditto.load(bundle, device=device, **released)
        loaded = time.perf_counter()
    with progress_of(console, "finding the faces"):
        try:
            portraits = head.register_faces(picture, faces, MAX_SIZE if max_size is None else max_size)
        except ValueError as error:
            raise InputError(str(error)) from None
        scene = [
            ditto.Speaker(portrait, sound, emotion=weights, still=still, style=strength)
            for portrait, sound in zip(portraits, sounds, strict=True)
        ]
        for portrait in portraits:
            head.appearance(portrait)
        registered = time.perf_counter()
    height, width = portraits[0].picture.shape[:2]
    with ExitStack() as stack:
        count = max(math.ceil(len(sound) / SAMPLES_PER_FRAME) for sound in sounds)
        with temporary_files():
            mixed = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ditto."))) / "sound.wav"
            write_mixed(recordings, count, mixed)
        frames = head.animate_scene(scene, seed=seed)
        writer = write_frames(
            (frame.image for frame in frames), count, console, format, label, output, width, height,
            audio=mixed, codec=codec, quality=quality, provenance=provenance,
        )  # fmt: skip
    finished = time.perf_counter()
    duration = writer.frames / FPS
    return {
        **written(writer, output),
        "seed": seed,
        "speakers": len(scene),
        "emotion": weights,
        "bundle": head.bundle.name,
        "load_seconds": round(loaded - start, 3),
        "register_seconds": round(registered - loaded, 3),
        "animate_seconds": round(finished - registered, 3),
        "real_time_factor": round((finished - registered) / max(duration, 1 / FPS), 4),
        "signed": writer.signed,
    }


def faces(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", readable=False, help="A picture with faces.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help=f"A picture to write with the faces numbered, {', '.join(SUFFIXES)}."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the faces of PICTURE by number, largest first, with their boxes in pixels of the file."""
    with errors_reported(as_json, debug):
        from ditto.media.images import FULL_SIZE, OpenedPicture
        from ditto.portrait.registration import MIN_FACE, find_faces
        from ditto.portrait.selection import box_of

        check_picture(picture, "0", None)
        if output is not None:
            check_sheet(output)
            check_distinct(output, picture)
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "finding the faces"):
            rgb, _ = OpenedPicture(picture).read(FULL_SIZE)
            found = find_faces(rgb)
        rows: list[dict[str, Any]] = [
            {"face": number, "box": list(box_of(face.landmarks)), "large_enough": face.size >= MIN_FACE}
            for number, face in enumerate(found)
        ]
        if output is not None:
            write_sheet(output, numbered(rgb, rows), None)  # the picture as it came, with boxes
        if as_json:
            print_result(json.dumps({"faces": rows, "output": None if output is None else str(output)}))
            return
        table = Table("face", "left,top,width,height", "")
        for row in rows:
            table.add_row(str(row["face"]), ",".join(map(str, row["box"])), "" if row["large_enough"] else "too small")
        print_table(table)


def numbered(rgb: Any, rows: list[dict[str, Any]]) -> Any:
    """The picture (H, W, 3) with a numbered box around each face."""
    import cv2

    drawn = rgb.copy()
    stroke = max(2, round(max(rgb.shape) / 500))
    for row in rows:
        left, top, width, height = row["box"]
        for colour, thick in (((0, 0, 0), 2 * stroke), ((255, 220, 0), stroke)):
            cv2.rectangle(drawn, (left, top), (left + width, top + height), colour, thick)
            size = max(0.5, math.sqrt(width) / 12)
            place = (left, max(top - 2 * stroke, round(24 * size)))
            cv2.putText(drawn, str(row["face"]), place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, thick, cv2.LINE_AA)
    return drawn
