"""`ditto train`: prepare footage and train on it. Each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditto.app.console import EXIT_INTERRUPTED, Debug, Json, errors_reported, interruption, print_error, print_result
from ditto.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Prepare footage and train on it.")


@app.callback()
def train() -> None:
    """Prepare footage and train on it."""


@app.command()
def motion(
    dataset: Annotated[Path, typer.Argument(help="A folder of `ditto train prepare`, or a corpus file (.npz).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for checkpoints, curve and the new bundle.")],
    preset: Annotated[
        str, typer.Option(help="short: fine-tune the bundle; lite: as the shipped weights; paper: the full-size LMDM.")
    ] = "short",
    bundle: Annotated[str, typer.Option(help="Name or folder of the bundle to start from.")] = "lite",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights on one machine.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates, if other than the preset's.")] = None,
    short_steps: Annotated[
        int | None, typer.Option(min=0, help="Updates of the half for short look-ahead; 0 leaves it as the long one.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1.")] = "cpu",
    adaptive_weights: Annotated[
        bool | None,
        typer.Option(
            "--adaptive-weights/--fixed-weights", help="Whether loss weights follow the losses of motion groups."
        ),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write curves for TensorBoard.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the motion network on DATASET: motion from speech."""
    with errors_reported(as_json, debug):
        import json

        from ditto.training.recipe import preset as preset_of

        recipe = preset_of(preset).changed(steps, short_steps, adaptive_weights)
        try:
            from ditto.training.motion import Options, train_motion
        except ImportError as error:
            raise InputError(
                f"training needs torch and onnx ({error}); pip install 'ditto-talking-head[train]'"
            ) from error

        def report(line: str) -> None:
            interruption.check()
            if not (quiet or as_json):
                print_error(line)

        options = Options(dataset, output, recipe, bundle, seed, resume, device, tensorboard=tensorboard, report=report)
        try:
            made = train_motion(options)
        except KeyboardInterrupt:
            print_error(
                f"ditto: interrupted; {output} keeps the last checkpoint, if there was one: go on with --resume"
            )
            number = interruption.number
            raise typer.Exit(EXIT_INTERRUPTED if number is None else 128 + number) from None
        if as_json:
            print_result(json.dumps({"output": str(made), "steps": recipe.steps, "seed": seed}))
        elif not quiet:
            print_result(str(made))
