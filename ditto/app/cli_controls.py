"""`ditto controls list | map | schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditto.app.cli_motion import check_place
from ditto.app.console import (
    Debug,
    Json,
    errors_reported,
    open_console,
    print_output,
    print_result,
    print_table,
    progress_of,
    show_warnings,
)
from ditto.app.options import Face, NoProvenance, SigningCertificate, SigningKey, parse_provenance
from ditto.app.pictures import SUFFIXES, check_picture, check_sheet, load_portrait, write_sheet
from ditto.commands import interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.controls.catalog import Control

app = typer.Typer(no_args_is_help=True, help="What of a face can be controlled.")


@app.command("list")
def list_controls(
    region: Annotated[str, typer.Option(help="Only controls of this region: brows, gaze, lips, head, ...")] = "",
    space: Annotated[
        str, typer.Option(help="Whose keypoints: lite, or full for the published Ditto's, which move other things.")
    ] = "lite",
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List every number that can be changed: its name, region, unit, safe range, and what minus and plus do."""
    with errors_reported(as_json, debug):
        from ditto.controls import CATALOG, REGIONS
        from ditto.controls.catalog import unknown
        from ditto.motion.map import MAPS

        try:
            if space not in MAPS:
                raise unknown("--space", space, MAPS)
            if region and region not in REGIONS:
                raise unknown("a region", region, REGIONS)
        except ValueError as error:
            raise InputError(str(error)) from None
        rows = [row_of(control, space) for control in CATALOG.values()]
        rows = [row for row in rows if region in ("", row["region"])]
        if as_json:
            print_output(json.dumps({"space": space, "controls": rows}))
        else:
            print_controls(rows)


def row_of(control: Control, space: str) -> dict[str, Any]:
    """A control as `list` prints it; a keypoint's with the words and the safe range of the space's map."""
    from ditto.motion.map import MAPS

    row: dict[str, Any] = {
        "name": control.name,
        "region": control.region,
        "unit": control.unit,
        "neutral": control.neutral,
        "low": control.low,
        "high": control.high,
        "safe_low": control.safe_low,
        "safe_high": control.safe_high,
        "minus": control.minus,
        "plus": control.plus,
    }
    dimension = MAPS[space].by_name.get(control.name)
    if dimension is not None:
        same = ("region", "minus", "plus", "safe_low", "safe_high")
        row |= {name: getattr(dimension, name) for name in same}
    return row


def print_controls(rows: list[dict[str, Any]]) -> None:
    """Print the controls as a table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "region", "unit", "safe range", "what it does"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "what it does")
    for row in rows:
        safe = f"{row['safe_low']:g} to {row['safe_high']:g}"
        words = words_of(row["minus"], row["plus"])
        table.add_row(*(escape(cell) for cell in (row["name"], row["region"], row["unit"], safe, words)))
    print_table(table)


def words_of(minus: str, plus: str) -> str:
    """What minus and plus do, in one text; a clause with which both end stands once, at the end."""
    (_, comma, clause), (_, _, other) = minus.rpartition(", "), plus.rpartition(", ")
    shared = comma + clause if comma and clause == other else ""
    signs = ((sign, words.removesuffix(shared)) for sign, words in (("-", minus), ("+", plus)) if words)
    return ", ".join(f"{sign}: {words}" for sign, words in signs) + shared


@app.command("map")
def draw(
    portrait: Annotated[
        Path,
        typer.Argument(
            metavar="PORTRAIT",
            readable=False,
            help="A picture with a face (- for standard input), or a saved one (.npz, .portrait).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help=f"The picture to write, {', '.join(SUFFIXES)}.")],
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "lite",
    device: Annotated[str, typer.Option(help="Where a full bundle's networks run: cpu, cuda, cuda:1.")] = "cpu",
    face: Face = "0",
    no_provenance: NoProvenance = False,
    signing_certificate: SigningCertificate = None,
    signing_key: SigningKey = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Draw PORTRAIT with each of the 63 numbers of its face at minus, zero and plus, the changed pixels outlined."""
    with errors_reported(as_json, debug):
        import ditto
        from ditto.app.controls_map import draw_map

        check_sheet(output)
        check_place(output, portrait)
        check_picture(portrait, face, None)
        provenance = parse_provenance(no_provenance, signing_certificate, signing_key)
        provenance = provenance and provenance.made_from(portrait=portrait)
        console = open_console(as_json)
        show_warnings(console)
        with progress_of(console, "loading the bundle"):
            head = ditto.load(bundle, device=device)
        with progress_of(console, "finding the face"):
            registered = load_portrait(head, portrait, face, 640)
        with progress_of(console, "drawing 126 faces"):
            sheet = draw_map(head, registered, interruption.check)
        write_sheet(output, sheet, provenance)
        height, width = sheet.shape[:2]
        if as_json:
            print_result(json.dumps({"output": str(output), "width": width, "height": height, "bundle": head.bundle.name}))
        else:
            print_result(f"{output}: {width} x {height}")


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON schema of timeline files."""
    with errors_reported(False, debug):
        from ditto.controls.timeline_file import timeline_schema

        print_output(json.dumps(timeline_schema(), indent=1))
