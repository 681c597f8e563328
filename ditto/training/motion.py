"""Train the motion network on a prepared dataset, or on the corpus of the shipped weights.

    python -m ditto.training.motion DATA OUT [--preset lite] [--bundle lite] [--seed 0] [--resume]
    accelerate launch --num_processes 8 -m ditto.training.motion DATA OUT --preset paper --device cuda

DATA is a folder of `ditto train prepare`, or a corpus file (`ditto.training.corpus`). OUT gets checkpoints, the curve
(`log.jsonl`) and, at the end, `bundle`: the base bundle with the trained motion network (lite), or `lmdm.safetensors`
(full). `ditto train motion` is the same command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ditto.bundle import Bundle, read_tensors
from ditto.commands import Arguments, run, whole_number
from ditto.errors import DittoError, InputError
from ditto.full.networks.lmdm import LMDM
from ditto.lite.networks.motion_diffusion import MotionCondition, MotionDiffusion
from ditto.lite.performer import postprocess_config
from ditto.lite.sampler import MotionNetwork
from ditto.training.dataset import Dataset, read_dataset, write_bytes
from ditto.training.motion_batches import (
    SHARES,
    Corpus,
    Drawn,
    Units,
    corpus_of_dataset,
    draw,
    load_corpus,
    with_motion_size,
)
from ditto.training.motion_eval import FullLipScore, LipScore
from ditto.training.motion_export import SAMPLER_PREFIX, make_bundle, motion_config, read_weights
from ditto.training.motion_loop import Run, Score, Trained, train
from ditto.training.motion_objectives import FullDenoising, LiteDenoising, Objective, full_config, lite_network
from ditto.training.motion_short import short_recipe, train_short
from ditto.training.recipe import PRESETS, Recipe, preset
from ditto.training.runs import check_run
from ditto.training.workers import open_workers


@dataclass(frozen=True)
class Options:
    """One run of motion training.

    Attributes:
        data: a prepared dataset, or a corpus file.
        out: folder of the run.
        recipe: its numbers.
        bundle: base bundle: its motion network to start from (if the recipe says so), its other parts for the new bundle.
        seed: of all randomness.
        resume: go on with the run in `out`.
        device: "cpu", "cuda" or "cuda:1".
        shares: of a corpus file: how often windows come from each kind of clip.
        tensorboard: also write curves for TensorBoard, to `out`/tensorboard.
        report: takes lines of progress.
    """

    data: Path
    out: Path
    recipe: Recipe
    bundle: str = "lite"
    seed: int = 0
    resume: bool = False
    device: str = "cpu"
    shares: Mapping[str, float] = field(default_factory=lambda: SHARES)
    tensorboard: bool = False
    report: Callable[[str], None] = print


class Data(NamedTuple):
    """What a run learns from and is scored on; `held` is None where no clip is kept out."""

    trained: Corpus
    held: Corpus | None


def read_data(path: Path, bundle: Bundle, recipe: Recipe, shares: Mapping[str, float] = SHARES) -> Data:
    """Clips to train on and held clips.

    Raises:
        DatasetError: no dataset of this version, a damaged clip, or features of another encoder than the bundle's.
        InputError: no clip to train on.
    """
    if path.is_file():
        held = None
        trained = load_corpus(path, shares)
        try:
            held = load_corpus(path, ("held",))
        except InputError:
            pass  # a corpus need not keep clips out
    else:
        dataset = read_dataset(path)
        check_encoder(dataset, bundle)
        trained = corpus_of_dataset(dataset, "train")
        held = corpus_of_dataset(dataset, "held") if dataset.of("held") else None
    size = recipe.motion_size
    return Data(with_motion_size(trained, size), None if held is None else with_motion_size(held, size))


def check_encoder(dataset: Dataset, bundle: Bundle) -> None:
    """Raises InputError for features that another encoder made than the bundle's."""
    part = bundle.parts.get("encoder")
    expected = None if part is None or "network" not in part.files else part.identity("network")
    if expected is not None and expected != dataset.encoder_sha256:
        raise InputError(
            f"expected features of the encoder of bundle {bundle.name!r} ({expected[:12]}...) in {dataset.folder}, got those "
            f"of {dataset.bundle!r} ({dataset.encoder_sha256[:12]}...); prepare the dataset again with this bundle"
        )


def units_of_bundle(bundle: Bundle) -> Units:
    """The units of a bundle's motion network."""
    names = [SAMPLER_PREFIX + "scale", SAMPLER_PREFIX + "silence", "condition.feature_mean", "condition.feature_scale"]
    found = dict(read_tensors(bundle.part("motion").file("weights")))
    scale, silence, mean, inverse = (np.asarray(found[name], np.float32) for name in names)
    return Units(scale, silence, mean, 1.0 / inverse)


def train_motion(options: Options) -> Path:
    """Train, and write what was trained; returns the new bundle (lite) or the file of weights (full).

    Raises:
        InputError, DatasetError: data, folder, bundle or recipe cannot be used.
        TrainingError: the loss became NaN; the last good checkpoint is in the folder.
        OutputError: a file cannot be written; the last good checkpoint is in the folder.
    """
    check_run(options.out, options.resume)
    torch.set_num_threads(1)  # several threads may add in another order in the next run
    torch.manual_seed(options.seed)
    recipe, bundle = options.recipe, Bundle.open(options.bundle)
    data = read_data(options.data, bundle, recipe, options.shares)
    workers = open_workers(options.device)
    units = units_of_bundle(bundle) if recipe.from_bundle else Units.of(data.trained)
    board = options.out / "tensorboard" if options.tensorboard else None
    report = options.report if workers.rank == 0 else _silent
    run = Run(recipe, options.seed, data.trained.fingerprint(), options.out, units, report, board)
    objective = make_objective(recipe, data.trained, units, bundle)
    score = make_score(recipe, data.held, units, bundle)
    if score is None:
        report("no held clips: the last step is kept, without a score")

    def windows(step: int, numbers: range) -> Drawn:
        return draw(data.trained, units, recipe, options.seed, step, numbers)

    trained = train(objective, windows, run, workers, score, options.resume)
    if trained.score is not None:
        report(f"kept step {trained.step}: lips {trained.score:.4f}")
    if recipe.size == "full":
        return _write_full(trained, options)
    network = trained.network
    assert isinstance(network, MotionDiffusion)
    short = None
    if recipe.short_steps:
        report("the condition half for short look-ahead")
        folder = options.out / "short"
        short_run = replace(
            run, recipe=short_recipe(recipe), out=folder, board=None if board is None else board / "short"
        )
        pupil = train_short(data.trained, network, short_run, workers, options.resume).network
        assert isinstance(pupil, MotionCondition)
        short = pupil.cpu()
    made = options.out / "bundle"
    if workers.rank == 0:
        origin = f"motion network trained by ditto train motion, {recipe.steps} steps, seed {options.seed}"
        make_bundle(bundle, made, network.cpu(), units.scale, units.silence, short, origin)
    return made


def _silent(text: str) -> None:
    """Reports of the other processes are those of the first."""


def make_objective(recipe: Recipe, corpus: Corpus, units: Units, bundle: Bundle) -> Objective:
    """The network of a recipe and its loss; new, or of the bundle.

    Raises:
        InputError: a recipe of the full size that starts from a bundle.
    """
    if recipe.size == "full":
        if recipe.from_bundle:
            raise InputError(
                "expected a new network at the full size, got a recipe that starts from a bundle; start anew"
            )
        return FullDenoising(LMDM(full_config(corpus)), recipe)
    if recipe.from_bundle:
        part = bundle.part("motion")
        network = read_weights(part.file("weights"), motion_config(part)).train()
    else:
        network = lite_network(units)
    return LiteDenoising(network, recipe, recipe.motion_size)


def make_score(recipe: Recipe, held: Corpus | None, units: Units, bundle: Bundle) -> Score | None:
    """What chooses the checkpoint; None without held clips."""
    if held is None:
        return None
    if recipe.size == "full":
        return FullLipScore(held, units)
    return LipScore(held, MotionNetwork.open(bundle.path, postprocess_config(bundle)), units)


def _write_full(trained: Trained, options: Options) -> Path:
    from safetensors.torch import save

    path = options.out / "lmdm.safetensors"
    write_bytes(path, save({name: t.detach().cpu().clone() for name, t in trained.network.state_dict().items()}))
    return path


def parse_shares(text: str) -> dict[str, float]:
    """`real:2,made:1` -> shares by kind.

    Raises:
        InputError: another form, or a share that is not above 0.
    """
    shares = {}
    for item in text.split(","):
        name, _, share = item.partition(":")
        try:
            shares[name.strip()] = float(share or 1)
        except ValueError:
            raise InputError(f"expected kind:share, got {item!r}; write it as real:2,made:1") from None
    if not shares or not all(np.isfinite(share) and share > 0 for share in shares.values()):
        raise InputError(f"expected shares above 0, got {text!r}; write them as real:2,made:1")
    return shares


def main() -> int:
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="lite", choices=list(PRESETS))
    parser.add_argument("--bundle", default="lite")
    parser.add_argument("--seed", type=whole_number(0, 2**63), default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--short-steps", type=int)
    parser.add_argument(
        "--shares", help=f"of a corpus file: how often windows come from each kind, as real:2,made:1 (default {dict(SHARES)})"
    )
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--adaptive-weights", action=argparse.BooleanOptionalAction, help="default: as the preset says")
    parser.add_argument("--tensorboard", action="store_true")
    given = parser.parse_args()
    try:
        recipe = preset(given.preset).changed(given.steps, given.short_steps, given.adaptive_weights)
        shares = SHARES if given.shares is None else parse_shares(given.shares)
        options = Options(
            given.data, given.out, recipe, given.bundle, given.seed, given.resume, given.device, shares,
            given.tensorboard, lambda line: print(line, flush=True),
        )  # fmt: skip
        print(train_motion(options))
    except DittoError as error:
        print(f"ditto: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


if __name__ == "__main__":
    run(main)
