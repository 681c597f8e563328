"""What the parts of motion training are good for: the lite network without each of them, at the same budget.

    python -m benchmarks.ablations CORPUS OUT [--steps 600] [--seeds 2]

CORPUS is a file of `ditto.training.corpus`. Every variant is trained from new weights on its `real` and `made` clips, with
the preset `lite` cut to `--steps` updates, once for each seed, and scored at the offline latency on clips that it was not
trained on: `held` (GRID, a speaker it knows), `natural` (talk, nobody it knows), and every 25th utterance of `made` (speech
with an emotion). Diffusion steps are compared on the same weights. Finished runs and scores stay in OUT: the same command
goes on with what is missing. An update takes 0.3 s of one core.

The paper's ablations: Ditto (arXiv:2411.19509), section 3.3 and its table 2. What the variants leave out stands in `VARIANTS`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from benchmarks._report import commit, publish, rows_table
from ditto.bundle import Bundle
from ditto.commands import Arguments, run, whole_number
from ditto.errors import DittoError, InputError
from ditto.lite.performer import postprocess_config
from ditto.lite.sampler import MotionNetwork, MotionSampler
from ditto.media.files import check_folder
from ditto.motion.motion import DEGREES
from ditto.training.dataset import write_json
from ditto.training.motion_batches import Corpus, Drawn, Units, draw, load_corpus
from ditto.training.motion_eval import LipFigures, LipScore, head_frame, measure_lips, sampled
from ditto.training.motion_loop import Run, train
from ditto.training.motion_objectives import LiteDenoising, lite_network
from ditto.training.recipe import Recipe, preset

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "complete": {},
        "no canonical keypoints": {"hide": ("canonical",)},
        "no emotion": {"hide": ("emotion",)},
        "no adaptive weights": {"adaptive": False},
    }
)
MORE_STEPS = 50  # of diffusion, against the sampler's 10
TRAINED_KINDS = ("real", "made")
KEPT_OUT = 25  # every so many utterances of `made` are scored, not trained on
HELD_CLIPS, MADE_CLIPS, SEEDED_CLIPS, NOISE_SEEDS = 16, 12, 4, 3
MADE_FRAMES = 150  # of each clip of `made` that is scored


@dataclass(frozen=True)
class Scores:
    """Of one network at one number of diffusion steps.

    Attributes:
        held, natural: lips on held GRID clips and on cuts of natural talk.
        head: degrees, mean over the axes of the head's spread within a held clip.
        between_seeds: degrees, spread of the yaw between noise seeds.
        expression: 1/1000 fu, error of the mean expression of kept-out clips with an emotion, over keypoints and axes.
    """

    held: LipFigures
    natural: LipFigures
    head: float
    between_seeds: float
    expression: float


COLUMNS = ("opening r", "width r", "spread", "talk: opening r", "width r", "spread", "head", "seeds", "expression")


class Material(NamedTuple):
    """What is trained on, and what is scored on."""

    trained: Corpus
    held: Corpus
    natural: Corpus
    made: Corpus


def material_of(path: Path) -> Material:
    """The parts of a corpus file.

    Raises:
        InputError: no corpus, or one that lacks a kind of clips.
    """
    trained, made = load_corpus(path, TRAINED_KINDS), load_corpus(path, ("made",))
    out = set(sorted(set(made.names))[::KEPT_OUT])
    if set(trained.names) <= out:
        raise InputError(f"expected more than {len(out)} utterances in {path}, got no more; make a larger corpus")
    made = made.only([name in out for name in made.names])
    return Material(
        trained.only([name not in out for name in trained.names]),
        spread(first_of_each(load_corpus(path, ("held",))), HELD_CLIPS),
        first_of_each(load_corpus(path, ("natural",))),
        spread(first_of_each(made._replace(length=np.minimum(made.length, MADE_FRAMES))), MADE_CLIPS),
    )


def first_of_each(corpus: Corpus) -> Corpus:
    """One clip of each name: the first, whose sound is as recorded."""
    _, first = np.unique(np.array(corpus.names), return_index=True)
    return corpus.only(np.isin(np.arange(len(corpus.names)), first))


def spread(corpus: Corpus, most: int) -> Corpus:
    """At most so many clips, evenly over the corpus."""
    count = len(corpus.names)
    return corpus.only(np.isin(np.arange(count), np.linspace(0, count - 1, min(most, count)).astype(np.int64)))


def score(sampler: MotionSampler, material: Material) -> Scores:
    """All figures of motion from a sampler."""
    held, made = material.held, material.made
    poses = [sampled(sampler, held, clip)[:, DEGREES].std(0).mean() for clip in range(len(held.names))]
    errors = [
        mean_face(head_frame(sampled(sampler, made, clip)), made.motion[made.rows(clip), 7:])
        for clip in range(len(made.names))
    ]
    seeds = [
        np.stack([sampled(sampler, made, clip, seed)[:, 2] for seed in range(NOISE_SEEDS)]).std(0).mean()
        for clip in range(min(SEEDED_CLIPS, len(made.names)))
    ]
    return Scores(
        measure_lips(sampler, held), measure_lips(sampler, material.natural), float(np.mean(poses)),
        float(np.mean(seeds)), float(np.mean(errors)),
    )  # fmt: skip


def mean_face(made: npt.ArrayLike, real: npt.ArrayLike) -> float:
    """1/1000 fu, root mean square over keypoints and axes of the difference of two mean expressions (T, 63 in all)."""
    ours, theirs = (np.asarray(faces, np.float64).reshape(len(np.asarray(faces)), -1).mean(0) for faces in (made, real))
    return float(1000.0 * np.sqrt(((ours - theirs) ** 2).mean()))


def recipe_of(variant: str, steps: int) -> Recipe:
    """The preset `lite` without what the variant leaves out, cut to a budget."""
    return replace(preset("lite"), steps=steps, short_steps=0, score_every=steps, **VARIANTS[variant])


def run_variant(variant: str, seed: int, steps: int, material: Material, out: Path, bundle: Bundle) -> None:
    """Train and score one variant with one seed; what is finished in `out` stays."""
    folder = out / f"{variant.replace(' ', '_')}-{seed}"
    recipe = recipe_of(variant, steps)
    diffusion = (10, MORE_STEPS) if variant == "complete" else (10,)
    missing = [count for count in diffusion if not (folder / f"scores_{count}.json").is_file()]
    if not missing:
        return
    units = Units.of(material.trained)
    torch.manual_seed(seed)
    objective = LiteDenoising(lite_network(units), recipe, recipe.motion_size)
    run = Run(recipe, seed, material.trained.fingerprint(), folder, units, lambda line: print(f"{folder.name}: {line}"))

    def windows(step: int, numbers: range) -> Drawn:
        return draw(material.trained, units, recipe, seed, step, numbers)

    network = train(objective, windows, run, resume=(folder / "checkpoint.pt").is_file()).network
    shown = Material(material.trained, *(corpus.without(recipe.hide) for corpus in material[1:]))
    engines = MotionNetwork.open(bundle.path, postprocess_config(bundle))
    for count in missing:
        found = score(LipScore(shown.held, engines, units, steps=count).sampler(network), shown)
        write_json(folder / f"scores_{count}.json", asdict(found) | {"commit": commit()})


def read_scores(out: Path, variant: str, seeds: int, diffusion: int = 10) -> npt.NDArray[np.float64]:
    """(seeds, 9) in the order of `COLUMNS`."""
    rows = []
    for seed in range(seeds):
        read = json.loads((out / f"{variant.replace(' ', '_')}-{seed}" / f"scores_{diffusion}.json").read_text())
        rows.append([*read["held"], *read["natural"], read["head"], read["between_seeds"], read["expression"]])
    return np.array(rows)


def table_of(out: Path, seeds: int) -> list[list[str]]:
    """A row for each variant: mean over the seeds, and half of their range."""
    named = [(name, read_scores(out, name, seeds)) for name in VARIANTS]
    named.insert(1, (f"complete, {MORE_STEPS} diffusion steps", read_scores(out, "complete", seeds, MORE_STEPS)))
    return [
        [name, *(f"{mean:.3g} ±{half:.2g}" for mean, half in zip(rows.mean(0), np.ptp(rows, 0) / 2, strict=True))]
        for name, rows in named
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Arguments(
        prog="python -m benchmarks.ablations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=whole_number(1, 10**6), default=600)
    parser.add_argument("--seeds", type=whole_number(1, 100), default=2)
    parser.add_argument("--bundle", default="lite", help="gives the numbers of the sampler and of its postprocessing")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        check_folder(options.out)
        material, bundle = material_of(options.corpus), Bundle.open(options.bundle)
        for seed in range(options.seeds):
            for variant in VARIANTS:
                run_variant(variant, seed, options.steps, material, options.out, bundle)
        rows = table_of(options.out, options.seeds)
    except DittoError as error:
        print(f"ditto: {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    title = f"{options.steps} updates, {options.seeds} seeds: mean ± half of the range over seeds"
    table = rows_table(title, ["variant", *COLUMNS], rows)
    publish("ablations", [], [table], steps=options.steps, seeds=options.seeds, columns=COLUMNS, rows=rows)
    return 0


if __name__ == "__main__":
    run(main)
