"""`ditto train`: prepare footage and train on it. Each command imports what it needs when it runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditto.app.console import (
    Debug,
    Json,
    errors_reported,
    open_console,
    print_error,
    print_result,
    progress_of,
    show_warnings,
)
from ditto.commands import interruption
from ditto.errors import InputError

if TYPE_CHECKING:
    from ditto.training.latent.generator import GeneratorSystem
    from ditto.training.latent.loop import Options
    from ditto.training.prepare import Result

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for checkpoint, curve and trained network.")]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="The same seed gives the same weights on one machine.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Updates, if other than the preset's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Device = Annotated[str, typer.Option(help="Where to train: cpu, cuda, cuda:1.")]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write curves, and pictures if any, for TensorBoard.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Clips = Annotated[Path, typer.Argument(metavar="CLIPS", help="A folder of clips, of `ditto train clips` or rendered.")]
Motion = Annotated[
    bool, typer.Option("--motion", help="Also train the condition on motion: gaze, head and emotion can be controlled.")
]
Codec = Annotated[Path, typer.Argument(metavar="CODEC", help="A folder of `ditto train codec`.")]
Speech = Annotated[
    str,
    typer.Option(
        metavar="lite|mel|BUNDLE",
        help="What hears the speech: lite's encoder; a mel encoder, trained too; layers of the HuBERT of a full bundle.",
    ),
]
Layers = Annotated[
    str | None, typer.Option(help="Layers of that HuBERT, as 4,8,12; by default all of them for rap, the last one for flow.")
]

app = typer.Typer(no_args_is_help=True, help="Prepare footage and train on it.")


@app.callback()
def train() -> None:
    """Prepare footage and train on it."""


@app.command()
def prepare(
    videos: Annotated[
        Path,
        typer.Argument(metavar="VIDEOS", readable=False, help="A folder of videos, or a .jsonl or .json list of them."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The dataset's folder; a preparation that was begun in it goes on.")
    ],
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights whose encoder hears the sound.")] = "lite",
    workers: Annotated[int, typer.Option(min=1, help="Processes; any number gives the same files.")] = 1,
    until: Annotated[
        str,
        typer.Option(help="Last step to run: media, scenes, faces, filters, sync, motion, emotion, features, export."),
    ] = "export",
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help="The videos have no scene cuts: look for none.")] = False,
    several_faces: Annotated[
        str, typer.Option(help="Where several large faces are seen at once: drop them, or keep each as a clip.")
    ] = "drop",
    min_seconds: Annotated[float, typer.Option(help="Shortest clip.")] = 1.5,
    max_seconds: Annotated[float, typer.Option(help="Longest clip; longer scenes are divided evenly.")] = 10.0,
    min_face: Annotated[float, typer.Option(help="Least height of the face, in pixels.")] = 80.0,
    min_sync_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Least agreement of sound and lips; 0 keeps every clip.")
    ] = 0.4,
    emotion: Annotated[
        str, typer.Option(help="auto (HSEmotion if its weights are installed, else landmarks), hsemotion, landmarks, neutral.")
    ] = "auto",
    shards: Annotated[
        int | None, typer.Option(min=1, metavar="MEGABYTES", help="Also write the clips as tar files of this size.")
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a dataset of footage: clips with motion, speech features and sound, and a report of what was dropped."""
    with errors_reported(as_json, debug):
        from ditto.training.prepare import Options
        from ditto.training.prepare import prepare as run

        console = open_console(quiet or as_json)
        show_warnings(console)
        interruption.outcome = "finished work is kept; run the same command again to go on"
        options = Options(
            bundle=bundle,
            cuts=not no_cuts,
            several_faces=several_faces,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            min_face=min_face,
            min_sync_confidence=min_sync_confidence,
            emotion=emotion,
        )
        with progress_of(console, "preparing") as status:

            def report(step: str, done: int, total: int) -> None:
                interruption.check()
                status.update(f"{step}: {done} of {total}")

            result = run(
                videos, output, options, workers=workers, until=until, shard_megabytes=shards, report=report
            )
        if as_json:
            print_result(json.dumps(summary(result, output)))
        elif not quiet:
            print_result("\n".join(lines(result, output)))


def summary(result: Result, output: Path) -> dict[str, Any]:
    """The result as one JSON object."""
    steps = {
        r.step: {"in": r.given, "out": r.kept, "seconds_out": r.seconds, "dropped": len(r.dropped)} for r in result.reports
    }
    clips = None if result.dataset is None else len(result.dataset.clips)
    notes = [note for r in result.reports for note in r.notes]
    return {"output": str(output), "clips": clips, "notes": notes, "steps": steps}


def lines(result: Result, output: Path) -> list[str]:
    """The result in lines: what each step dropped, and what there is."""
    from ditto.training.prepare.report import reasons

    said = [f"{r.step}: {r.given} in, {r.kept} out; dropped {reasons([r])}" for r in result.reports if r.dropped]
    last = result.reports[-1]
    rest = f"{last.seconds / 60:.1f} minutes; see {output / 'steps' / 'report.md'}"
    if result.dataset is None:
        return [*said, f"{output}: {last.kept} clips after the step {last.step}, {rest}"]
    held = len(result.dataset.of("held"))
    return [*said, f"{output}: {last.kept} clips ({held} held out), {rest}"]


@app.command()
def clips(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A folder of `ditto train prepare`, with steps and videos.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the clips; work that was begun in it goes on.")],
    side: Annotated[int, typer.Option(min=16, max=2048, help="Pixels of a side of the square around the face.")] = 80,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Cut the videos of DATASET to clips of faces, for `codec`, `flow` and `rap`."""
    with errors_reported(as_json, debug):
        from ditto.training.latent.footage import clips_of_footage

        interruption.outcome = "finished clips are kept; run the same command again to go on"
        made = clips_of_footage(dataset, output, side, report_of(quiet or as_json))
        print_made(output, as_json, quiet, clips=len(made.clips))


@app.command()
def motion(
    dataset: Annotated[
        Path, typer.Argument(metavar="DATASET", help="A folder of `ditto train prepare`, or a corpus file (.npz).")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for checkpoints, curve and the new bundle.")],
    preset: Annotated[
        str, typer.Option(help="short: fine-tune the bundle; lite: as the shipped weights; paper: the full-size LMDM.")
    ] = "short",
    bundle: Annotated[str, typer.Option(help="Name or folder of the bundle to start from.")] = "lite",
    seed: Seed = 0,
    steps: Steps = None,
    short_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Updates of the half that balanced, low and lowest use; 0 takes that of quality for them.")
    ] = None,
    resume: Resume = False,
    device: Device = "cpu",
    adaptive_weights: Annotated[
        bool | None,
        typer.Option(
            "--adaptive-weights/--fixed-weights", help="Whether loss weights follow the losses of motion groups."
        ),
    ] = None,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the motion network on DATASET: motion from speech."""
    with errors_reported(as_json, debug):
        from ditto.training.recipe import preset as preset_of

        recipe = preset_of(preset).changed(steps, short_steps, adaptive_weights)
        with packages_of_training():
            from ditto.training.motion import Options, train_motion
        report = report_of(quiet or as_json)
        options = Options(dataset, output, recipe, bundle, seed, resume, device, tensorboard=tensorboard, report=report)
        resumable(output)
        made = train_motion(options)
        print_made(made, as_json, quiet, steps=recipe.steps, seed=seed)


@app.command()
def avatar(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="VIDEOS", help="Videos of one person (a folder or a list), or a folder of `ditto train prepare`."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the adapter, the new bundle, checkpoints and curve.")
    ],
    bundle: Annotated[str, typer.Option(help="Name or folder of the bundle to adapt.")] = "lite",
    person: Annotated[str | None, typer.Option(help="Whose clips to take, if the dataset has several people.")] = None,
    no_cuts: Annotated[bool, typer.Option("--no-cuts", help="The videos have no scene cuts: look for none.")] = False,
    rank: Annotated[int, typer.Option(min=1, help="Of the adapter: its size, and how much it can change.")] = 8,
    steps: Steps = None,
    seed: Seed = 0,
    resume: Resume = False,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit the motion network to one person: a small adapter, and a bundle that moves as this person does."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.avatar import RECIPE, Options, train_avatar
        recipe, report = RECIPE.changed(steps, None, None), report_of(quiet or as_json)
        options = Options(dataset, output, bundle, person, rank, recipe, seed, resume, device, report, not no_cuts)
        resumable(output)
        made = train_avatar(options)
        lips = {"before": made.before, "after": made.after}
        held = {name: None if figures is None else figures._asdict() for name, figures in lips.items()}
        print_made(made.bundle, as_json, quiet, adapter=str(made.adapter), minutes=made.minutes, held=held)


@app.command()
def encoder(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with speech and grid_s1.")],
    tracks: Annotated[Path, typer.Argument(metavar="TRACKS", help="Tracks of grid_s1, of ditto.training.tracks.")],
    moonshine: Annotated[Path, typer.Argument(metavar="MOONSHINE", help="The unpacked wheel of moonshine-voice 0.1.0.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for teacher, checkpoint and weights.")],
    align: Annotated[Path | None, typer.Option(help="Phone alignments, of ditto.training.align.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 3100,
    batch: Annotated[int, typer.Option(min=1, help="Segments of an update.")] = 8,
    seed: Seed = 0,
    resume: Resume = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the speech encoder as the shipped one was: distilled from Moonshine."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.encoder import Options, train_encoder
        report = report_of(quiet or as_json)
        resumable(output)
        made = train_encoder(
            Options(data, tracks, moonshine, output, align, steps, batch, seed, resume, report)
        )
        print_made(made, as_json, quiet, steps=steps, seed=seed)


@app.command()
def codec(
    clips: Clips,
    output: Output,
    preset: Annotated[str, typer.Option(help="small, small-rap: 32 x 32; face, face-rap: 64 x 64; paper.")] = "small",
    seed: Seed = 0,
    steps: Steps = None,
    resume: Resume = False,
    device: Device = "cpu",
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train the codec of the latent systems on CLIPS: video to latents and back."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.latent.codec import PRESETS, train_codec
            from ditto.training.latent.loop import Options
            from ditto.training.recipe import named
        recipe = named(PRESETS, preset).shortened(steps)
        options = Options(clips, output, seed, resume, device, report_of(quiet or as_json), tensorboard)
        resumable(output)
        made = train_codec(options, recipe)
        held = {n: {name: f._asdict() for name, f in groups.items()} for n, groups in made.figures.items()}
        print_made(made.folder, as_json, quiet, held=held, seed=seed)


@app.command()
def flow(
    clips: Clips,
    codec: Codec,
    output: Output,
    preset: Annotated[str, typer.Option(help="small, face: for a codec of that preset; paper: the full size.")] = "small",
    motion: Motion = False,
    speech: Speech = "lite",
    layers: Layers = None,
    seed: Seed = 0,
    steps: Steps = None,
    resume: Resume = False,
    device: Device = "cpu",
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train V's generator on CLIPS, in latents of CODEC: speech to latents, block by block."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.latent.flow import FLOW
            from ditto.training.latent.loop import Options
        options = Options(clips, output, seed, resume, device, report_of(quiet or as_json), tensorboard)
        train_system(FLOW, options, codec, preset, motion, steps, speech, layers)
        print_made(output / "flow.safetensors", as_json, quiet, seed=seed)


@app.command()
def rap(
    clips: Clips,
    codec: Codec,
    output: Output,
    preset: Annotated[str, typer.Option(help="small, face: for a codec of that preset; paper: the full size.")] = "small",
    motion: Motion = False,
    speech: Speech = "lite",
    layers: Layers = None,
    seed: Seed = 0,
    steps: Steps = None,
    resume: Resume = False,
    device: Device = "cpu",
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train RAP's denoiser on CLIPS, in latents of CODEC: speech to clips of latents."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.latent.loop import Options
            from ditto.training.latent.rap import RAP
        options = Options(clips, output, seed, resume, device, report_of(quiet or as_json), tensorboard)
        train_system(RAP, options, codec, preset, motion, steps, speech, layers)
        print_made(output / "rap.safetensors", as_json, quiet, seed=seed)


@app.command()
def bundle(
    codec: Codec,
    generator: Annotated[
        Path, typer.Argument(metavar="GENERATOR", help="A folder of `ditto train flow` or `ditto train rap`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle's folder, a new one.")],
    name: Annotated[str | None, typer.Option(help="Of the bundle; by default that of its folder.")] = None,
    licence: Annotated[str, typer.Option(help="Of its weights.")] = "unknown",
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a bundle of V or RAP from CODEC and GENERATOR: one that `ditto animate --bundle` takes."""
    with errors_reported(as_json, debug):
        with packages_of_training():
            from ditto.training.latent.bundle import bundle_of_training
        made = bundle_of_training(codec, generator, output, name or output.name, licence)
        print_made(made.path, as_json, quiet, id=made.id)


def train_system(
    system: GeneratorSystem[Any, Any],
    options: Options,
    codec: Path,
    preset: str,
    motion: bool,
    steps: int | None,
    speech: str,
    layers: str | None,
) -> None:
    """Train the generator of a system by a preset, with motion as a condition if asked for."""
    from ditto.training.latent.generator import train_generator
    from ditto.training.latent.hearing import speech_named
    from ditto.training.recipe import named

    recipe = named(system.presets, preset).shortened(steps)
    heard = speech_named(speech, layers, system.stacks, options.seed)
    recipe = recipe.with_speech(heard)
    resumable(options.out)
    train_generator(system, options, codec, recipe.with_motion() if motion else recipe, speech=heard)


def print_made(path: Path, as_json: bool, quiet: bool, **more: Any) -> None:
    """Print where the result of a command lies; as JSON, with more of it."""
    if as_json:
        print_result(json.dumps({"output": str(path), **more}))
    elif not quiet:
        print_result(str(path))


@contextmanager
def packages_of_training() -> Iterator[None]:
    """Raises InputError where a package of training is not installed."""
    try:
        yield
    except ImportError as error:
        raise InputError(f"training needs torch and onnx ({error}); pip install 'ditto-talking-head[train]'") from error


def resumable(output: Path) -> None:
    """What the report of an interruption says from now on: of a run with checkpoints in a folder."""
    interruption.outcome = f"{output} keeps the last checkpoint, if there was one: go on with --resume"


def report_of(silent: bool) -> Callable[[str], None]:
    """Prints lines of progress, and ends the run at an interruption."""

    def report(line: str) -> None:
        interruption.check()
        if not silent:
            print_error(line)

    return report
