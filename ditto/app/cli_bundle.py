"""`ditto bundle convert | pull | verify`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from ditto.commands import interruption
from ditto.errors import BundleError, InputError

if TYPE_CHECKING:
    from ditto.bundle import Bundle

app = typer.Typer(no_args_is_help=True, help="Folders of weights.")


@app.command()
def verify(
    bundle: Annotated[str, typer.Argument(help="Name or folder.")] = "lite", as_json: Json = False, debug: Debug = False
) -> None:
    """Check every file of a bundle: SHA-256, no NaN, the shapes that its network takes."""
    with errors_reported(as_json, debug):
        from ditto.bundle import Bundle

        report_checks(Bundle.open(bundle), as_json)


def report_checks(opened: Bundle, as_json: bool, report: Callable[[str], None] = print_output) -> None:
    """Check a bundle; print a table, or one JSON object, with `report`.

    Raises:
        BundleError: a file failed its check.
    """
    from rich.markup import escape
    from rich.table import Table

    from ditto.bundle import examine

    table = Table(box=None, pad_edge=False, show_header=False)
    checks = []
    with progress_of(open_console(as_json), f"checking {escape(str(opened.path))}"):
        for check in examine(opened):
            interruption.check()
            checks.append(check)
            mark = "[green]ok[/]" if check.ok else "[red]no[/]"
            table.add_row(mark, escape(check.part), escape(check.file), escape(check.detail))
    wrong = [check for check in checks if not check.ok]
    files = [check.file for check in checks]
    if not as_json:
        print_table(table, report)
    if wrong:
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BundleError(f"{wrong[0].detail}{more}")
    check_latent(opened)
    if as_json:
        report(json.dumps({"bundle": opened.name, "path": str(opened.path), "files": files, "ok": True}))
    else:
        report(f"{opened.name}: all {len(files)} files passed ({opened.path})")


def check_latent(opened: Bundle) -> None:
    """Open a bundle of V or RAP, if torch is installed: the files may be whole and yet not fit each other.

    Raises:
        BundleError: a part of another version, system or size, or weights of another network.
    """
    if opened.motion_space not in ("v", "rap"):
        return
    try:
        from ditto.latent.bundling import open_parts
    except ImportError:
        return
    open_parts(opened)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Option("--from", help="The folder of the published checkpoints, searched with its subfolders.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle's folder; by default where `--bundle full` finds it."),
    ] = None,
    hubert: Annotated[
        Path | None,
        typer.Option(help="The folder of Hugging Face's facebook/hubert-large-ls960-ft, if it is another."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing bundle.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a bundle of the published Ditto checkpoints."""
    with errors_reported(as_json, debug):
        run_convert(source, output, hubert, replace, as_json)


def run_convert(source: Path, output: Path | None, hubert: Path | None, replace: bool, as_json: bool) -> None:
    """Runs `ditto bundle convert`: convert, then check the result.

    Raises:
        InputError: torch is not installed.
    """
    try:
        from ditto.full.conversion import convert
    except ImportError as error:
        raise InputError(f"{error}: reading checkpoints needs torch; pip install 'ditto-talking-head[full]'") from error
    console = open_console(as_json)
    show_warnings(console)
    with progress_of(console, "reading") as status:

        def report(text: str) -> None:
            interruption.check()
            status.update(text)

        bundle = convert(source, output, hubert=hubert, replace=replace, report=report)
    report_checks(bundle, as_json, print_result)


@app.command()
def pull(
    bundle: Annotated[str, typer.Argument(help="Which bundle: full.")] = "full",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The bundle's folder; by default where `--bundle full` finds it."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Agree to the licences without being asked.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace an existing bundle.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch the published Ditto checkpoints from the Hugging Face hub and make a bundle of them."""
    with errors_reported(as_json, debug):
        run_pull(bundle, output, yes, replace, as_json)


def is_interactive() -> bool:
    """Whether standard input is a terminal, so that the user can answer a question."""
    return sys.stdin is not None and sys.stdin.isatty()


def run_pull(name: str, output: Path | None, yes: bool, replace: bool, as_json: bool) -> None:
    """Runs `ditto bundle pull`: show the licences, ask, fetch, convert, check.

    Raises:
        InputError: another bundle than "full"; nobody agreed to the licences.
    """
    from ditto.full.hub import licences, pull

    if name != "full":
        raise InputError(f"expected full, the bundle that can be fetched, got {name!r}; run ditto bundle pull full")
    console = open_console()
    console.print(licences(), highlight=False, markup=False)
    if not yes:
        if not is_interactive():
            raise InputError("expected a terminal, to ask for your agreement to these licences; read them and add --yes")
        if not typer.confirm("Fetch these files under these licences?", err=True):
            raise InputError("expected your agreement to these licences, got none; nothing was fetched")
    show_warnings(console)

    def report(text: str) -> None:
        interruption.check()
        if not as_json:
            console.print(text, highlight=False, markup=False)

    report_checks(pull(output, replace=replace, report=report), as_json, print_result)
