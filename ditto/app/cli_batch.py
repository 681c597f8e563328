"""`ditto batch`."""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditto.app.console import Debug, Json, errors_reported, open_console, print_error, print_result, show_warnings
from ditto.app.options import (
    LabelCorner,
    LabelFont,
    LabelText,
    NoProvenance,
    SigningCertificate,
    SigningKey,
    parse_label,
    parse_provenance,
)
from ditto.commands import EXIT_FAILURE, interruption

if TYPE_CHECKING:
    from ditto.cluster.batch import Result
    from ditto.cluster.workers import Workers
    from ditto.provenance import Label, Provenance


def batch(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", readable=False, help="A JSON object a line: portrait, audio, output, ...")
    ],
    folder: Annotated[Path, typer.Option("--output", "-o", help="The folder of the videos, of journal and report.")],
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS", help="A Ray cluster to work on: HOST:PORT, or auto for this machine's.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Videos made at once; one a processor core by default.")
    ] = None,
    no_provenance: NoProvenance = False,
    signing_certificate: SigningCertificate = None,
    signing_key: SigningKey = None,
    label: LabelText = None,
    label_corner: LabelCorner = "bottom-right",
    label_font: LabelFont = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the videos of MANIFEST. What is done is kept: after an interruption, the same command goes on."""
    with errors_reported(as_json, debug):
        provenance = parse_provenance(no_provenance, signing_certificate, signing_key)
        drawn = parse_label(label, label_corner, label_font)
        results = run(manifest, folder, ray, workers, provenance, drawn, quiet or as_json)
        counts = Counter(result.status for result in results)
        said = {name.replace(" ", "_"): counts[name] for name in ("done", "done before", "failed", "not done")}
        if as_json:
            print_result(json.dumps({"folder": str(folder), **said}))
        elif not quiet:
            print_result(
                f"{folder}: {counts['done']} videos made, {counts['done before']} made before, {counts['failed']} failed"
            )
        if counts["failed"]:
            raise typer.Exit(EXIT_FAILURE)


def run(
    manifest: Path,
    folder: Path,
    address: str,
    count: int | None,
    provenance: Provenance | None,
    label: Label | None,
    quiet: bool,
) -> list[Result]:
    """Run the batch, with progress on standard error and each failure in a line of it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ditto.cluster.batch import run_batch
    from ditto.cluster.manifest import read_manifest
    from ditto.cluster.work import animate
    from ditto.machine import cores

    lines = read_manifest(manifest, folder)
    work = partial(animate, label=label)
    console = open_console(quiet)
    show_warnings(console)

    def open_workers() -> Workers:
        if address:
            from ditto.cluster.on_ray import RayWorkers

            return RayWorkers(address, count, folder, work)
        from ditto.cluster.workers import LocalWorkers

        return LocalWorkers(count or cores(), folder, work)

    columns = (TextColumn("videos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=console.quiet or not console.is_terminal) as bar:
        task = bar.add_task("videos", total=len(lines))
        over = 0

        def told(result: Result | None) -> None:
            nonlocal over
            interruption.check()
            if result is None:
                return
            over += 1
            bar.update(task, completed=over)
            interruption.outcome = f"{over} of {len(lines)} are over; the same command goes on with the rest"
            if result.status == "failed":
                place = f"line {result.line}" + (f", {result.output}" if result.output else "")
                print_error(f"ditto: {place}: {result.about['error']}: {result.about['message']}")

        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # Ray prints there what happens to its machines
            return run_batch(lines, folder, open_workers, told, provenance)
