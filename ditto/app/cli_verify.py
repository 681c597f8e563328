"""`ditto verify`: what the content credentials of a file say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditto.app.console import Debug, Json, errors_reported, print_output
from ditto.commands import printable

if TYPE_CHECKING:
    from ditto.provenance import Verdict

EXIT_ALTERED, EXIT_ABSENT, EXIT_UNTRUSTED = 3, 4, 5


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A video or picture, of ditto or not.")],
    trust: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="Certificates (PEM) that you trust; a file that others signed exits with 5."
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say whether FILE has content credentials (C2PA), and whether it is as it was when it was signed.

    Exit code: 0 valid, 3 altered, 4 absent; with --trust 5 for a valid file that nobody in it signed; 2 for a file that cannot
    be read.
    """
    with errors_reported(as_json, debug):
        from ditto.provenance import verify as read

        verdict = read(file, trust)
        if as_json:
            print_output(json.dumps(report(file, verdict)))
        else:
            print_output(printable(f"{file}: {sentence(verdict)}"))  # makers write names into their files
        if code := exit_code(verdict, trust is not None):
            raise typer.Exit(code)


def exit_code(verdict: Verdict, trust_given: bool) -> int:
    """The exit code of a verdict; an untrusted key counts where the user says whom to trust."""
    codes = {"valid": 0, "untrusted": EXIT_UNTRUSTED if trust_given else 0, "altered": EXIT_ALTERED, "absent": EXIT_ABSENT}
    return codes[verdict.state]


def sentence(verdict: Verdict) -> str:
    """A verdict in plain words, in one line."""
    if verdict.state == "absent" and verdict.problems:
        return f"absent: its content credentials are not in it, and nothing is fetched ({verdict.problems[0]})"
    if verdict.state == "absent":
        return "absent: it has no content credentials, which says nothing about how it was made"
    maker, signer = verdict.generator or "an unnamed program", verdict.signer or "an unnamed certificate"
    if verdict.state == "altered":
        codes = ", ".join(code for code in verdict.problems if code != "signingCredential.untrusted")
        made = f"; before that, {maker} made it" if verdict.generator else ""
        return f"altered: the file or its content credentials were changed after signing ({codes}){made}"
    made = f"made by {maker}{' with AI' if verdict.is_generated else ''}, unchanged since it was signed"
    files = ", ".join(f"{given.title} {given.sha256[:12]}" for given in verdict.ingredients if given.sha256)
    told = f"{made}{f' (from {files})' if files else ''}"
    if verdict.state == "valid":
        return f"valid: {told}; signed by {signer}, which you trust"
    if "signingCredential.expired" in verdict.problems:
        return f"valid, but the certificate has expired: {told}; signed by {signer}"
    return f"valid, but the key is not trusted: {told}; signed by {signer}, for whom nobody vouches"


def report(file: Path, verdict: Verdict) -> dict[str, object]:
    """A verdict as JSON."""
    return verdict._asdict() | {
        "file": str(file),
        "is_generated": verdict.is_generated,
        "ingredients": [given._asdict() for given in verdict.ingredients],
        "sidecar": None if verdict.sidecar is None else str(verdict.sidecar),
    }
