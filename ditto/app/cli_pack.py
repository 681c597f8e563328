"""`ditto pack`: a picture, or a saved portrait, as a packed portrait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ditto.app.cli_motion import check_place
from ditto.app.console import Debug, Json, errors_reported, open_console, print_result, progress_of, show_warnings
from ditto.app.options import BundleName, Face, MaxSize
from ditto.app.pictures import check_picture, load_portrait
from ditto.errors import OutputError


def pack(
    portrait: Annotated[
        Path,
        typer.Argument(
            metavar="PORTRAIT",
            readable=False,
            help="A picture with a face (- for standard input), or a saved one (.npz, .portrait).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write, .portrait; an existing one is replaced.")],
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Keep the pictures bit for bit, in a file about four times as large.")
    ] = False,
    bundle: BundleName = "lite",
    face: Face = "0",
    max_size: MaxSize = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write PORTRAIT as one small file that needs no preparation and that a browser can draw from."""
    with errors_reported(as_json, debug):
        import ditto
        from ditto.media.files import check_writable
        from ditto.media.images import MAX_SIZE
        from ditto.portrait.portrait import PACKED_SUFFIX

        if output.suffix.lower() != PACKED_SUFFIX:
            raise OutputError(f"expected an output that ends in {PACKED_SUFFIX}, got {output.name!r}; choose another name")
        check_writable(output)
        check_place(output, portrait)
        check_picture(portrait, face, max_size)
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "loading the bundle"):
            head = ditto.load(bundle)
        with progress_of(console, "finding the face"):
            loaded = load_portrait(head, portrait, face, MAX_SIZE if max_size is None else max_size)
        with progress_of(console, "packing"):
            size = len(head.pack(loaded, output, lossless=lossless))
        if as_json:
            report = {"output": str(output), "bytes": size, "lossless": lossless, "bundle": head.bundle.name}
            print_result(json.dumps(report))
        else:
            print_result(f"{output}: {size / 1000:.0f} kB")
