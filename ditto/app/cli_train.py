"""`ditto train`: prepare footage and train on it. Each command imports what it needs when it runs."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Prepare footage and train on it.")


@app.callback()
def train() -> None:
    """Prepare footage and train on it."""
