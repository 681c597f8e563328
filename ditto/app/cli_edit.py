"""`ditto edit`: the editor of controls over time."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ditto.app.console import Debug, errors_reported, open_console, print_result, progress_of, show_warnings
from ditto.app.options import (
    Changes,
    Face,
    NoProvenance,
    PublishedSettings,
    SigningCertificate,
    SigningKey,
    parse_provenance,
    parse_settings,
)
from ditto.commands import interruption
from ditto.errors import InputError

PACKAGES = ("fastapi", "uvicorn")
MAX_SIZE = 768  # of the preview


def edit(
    portrait: Annotated[
        Path,
        typer.Argument(metavar="PORTRAIT", readable=False, help="A picture with a face, or a saved one (.npz, .portrait)."),
    ],
    recording: Annotated[
        Path, typer.Argument(metavar="RECORDING", readable=False, help="A recording, or a take (.take) of one.")
    ],
    controls: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="The timeline file to edit; Save writes it. By default RECORDING with the ending .yaml."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="Of all randomness; of a recording only.")] = 0,
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "lite",
    device: Annotated[str, typer.Option(help="Where a full bundle's networks run: cpu, cuda, cuda:1.")] = "cpu",
    settings: PublishedSettings = None,
    changes: Changes = None,
    face: Face = "0",
    max_size: Annotated[
        int | None, typer.Option(min=64, help=f"Longest side of a picture in pixels; {MAX_SIZE} by default.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8401,
    no_provenance: NoProvenance = False,
    signing_certificate: SigningCertificate = None,
    signing_key: SigningKey = None,
    debug: Debug = False,
) -> None:
    """Open a page on which to edit the controls of RECORDING over time, with a preview of every frame."""
    with errors_reported(False, debug):
        from importlib.util import find_spec

        if missing := [name for name in PACKAGES if find_spec(name) is None]:
            raise InputError(f"`ditto edit` needs {', '.join(missing)}; pip install 'ditto-talking-head[serve]'")
        import ditto
        from ditto.app.pictures import check_picture, load_portrait
        from ditto.editor.app import create_app
        from ditto.editor.opening import check_recording, open_project, timeline_file
        from ditto.live.server.run import Address, listen, serve

        address = Address(port=port)
        path = controls or timeline_file(recording)
        released = parse_settings(settings, changes)
        check_picture(portrait, face, max_size)
        check_recording(recording, path)
        provenance = parse_provenance(no_provenance, signing_certificate, signing_key)
        provenance = provenance and provenance.made_from(portrait=portrait, speech=recording)
        console = open_console()
        show_warnings(console)
        with listen(address) as listening, tempfile.TemporaryDirectory(prefix="ditto-edit-") as folder:
            with progress_of(console, "loading the bundle, finding the face, generating the motion"):
                head = ditto.load(bundle, device=device, **released)
                shown = load_portrait(head, portrait, face, MAX_SIZE if max_size is None else max_size)
                interruption.check()
                project = open_project(head, shown, recording, path, Path(folder), seed)
                project.preview(0, project.timeline)  # prepares the portrait
                interruption.check()
            print_result(f"the editor is at {address.url_of(listening)}; Save writes {path}")
            for note in address.notes:
                console.print(note, style="dim", highlight=False)
            serve(create_app(project, provenance=provenance), address, listening)
