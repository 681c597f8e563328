"""Fit the motion network to one person: `ditto train avatar`.

Ten minutes of a person's footage change a network of 1.3 million weights too easily. So the weights stay, and an adapter of
a few ten thousand numbers is trained beside them for a few hundred updates with weight decay, which draws it back to no
change (`ditto.training.adapter`). It carries how this person's lips, face and head follow the voice; what a portrait looks
like it does not change.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ditto.bundle import Bundle
from ditto.errors import InputError
from ditto.lite.networks.motion_diffusion import MotionCondition, MotionDiffusion
from ditto.lite.performer import postprocess_config
from ditto.lite.postprocess import normalise_opening, openings_of
from ditto.lite.sampler import MotionNetwork, MotionSampler, silence_of
from ditto.media.rates import FPS
from ditto.training.adapter import (
    SHORT,
    Adapter,
    Layers,
    adapted_bundle,
    add_layers,
    base_halves,
    layers_of,
    low_ranks,
    with_adapter,
)
from ditto.training.dataset import ClipInfo, Dataset, read_dataset, write_json
from ditto.training.motion import check_encoder, units_of_bundle
from ditto.training.motion_batches import Corpus, Drawn, corpus_of_dataset, draw
from ditto.training.motion_eval import LipFigures, measure_lips, sampled_state, torch_sampler
from ditto.training.motion_loop import Run, train
from ditto.training.motion_objectives import LiteDenoising
from ditto.training.motion_short import ShortDistillation, begun
from ditto.training.recipe import Recipe
from ditto.training.runs import SHOWN_EVERY, check_run
from ditto.training.workers import open_workers

RECIPE = Recipe(
    steps=300, batch=16, learning_rate=1e-3, warmup=20, weight_decay=0.05, from_bundle=True, short_steps=0,
    checkpoint_every=50,
)  # fmt: skip
RANK = 8
MEASURED_CLIPS = 24  # the most whose openings are sampled
GAP_LIMITS = (0.5, 1.5)  # a person's opening of the lips against the base's, least and most; chosen by hand


@dataclass(frozen=True)
class Options:
    """One run.

    Attributes:
        data: a prepared dataset, or a folder of videos (or a list of them), which is prepared first, in `out`/dataset.
        out: gets `adapter.safetensors`, `bundle`, `report.json`, checkpoints and the curve.
        bundle: the base.
        person: whose clips of a dataset of several people.
        rank: of the adapter.
        recipe: numbers of the training.
        seed: of all randomness.
        resume: go on with the run in `out`.
        device: "cpu", "cuda" or "cuda:1".
        report: takes lines of progress.
        cuts: look for scene cuts in the videos (`ditto.training.prepare.Options`).
    """

    data: Path
    out: Path
    bundle: str = "lite"
    person: str | None = None
    rank: int = RANK
    recipe: Recipe = RECIPE
    seed: int = 0
    resume: bool = False
    device: str = "cpu"
    report: Callable[[str], None] = print
    cuts: bool = True


class Avatar(NamedTuple):
    """What came of a run: lips on held clips with the base and with the new bundle; None where no clips are held."""

    adapter: Path
    bundle: Path
    minutes: float
    before: LipFigures | None
    after: LipFigures | None


class LowRankDenoising(LiteDenoising):
    """`LiteDenoising` of a network of `with_adapter`; a checkpoint belongs to one rank and one base."""

    def __init__(self, network: MotionDiffusion, recipe: Recipe, rank: int, base_sha256: str) -> None:
        super().__init__(network, recipe, recipe.motion_size)
        self.rank, self.base_sha256 = rank, base_sha256

    @property
    def config(self) -> dict[str, Any]:
        return super().config | {"rank": self.rank, "base": self.base_sha256}


def train_avatar(options: Options) -> Avatar:
    """Train an adapter, and write it with the bundle that it makes of the base.

    Raises:
        InputError, DatasetError: data, folder or bundle cannot be used.
        TrainingError: the loss became NaN; the last good checkpoint is in the folder.
        OutputError: a file cannot be written; the last good checkpoint is in the folder.
    """
    check_run(options.out, options.resume)
    torch.set_num_threads(1)  # several threads may add in another order in the next run
    base = Bundle.open(options.bundle)
    model = base.part("motion").model
    if model != "motion_diffusion":
        raise InputError(f"expected a lite bundle, got {base.name!r}, whose motion network is {model}; give another")
    dataset = dataset_of(options)
    check_encoder(dataset, base)
    dataset = of_person(dataset, options.person)
    corpus = corpus_of_dataset(dataset, "train")
    held = corpus_of_dataset(dataset, "held") if dataset.of("held") else None
    minutes = float(corpus.length.sum()) / (60 * FPS)
    options.report(f"{len(corpus.names)} clips, {minutes:.1f} minutes")
    origin = origin_of(dataset.of("train"), minutes, options)
    adapter = fit(base, corpus, options, origin)
    path, folder = options.out / "adapter.safetensors", options.out / "bundle"
    adapter.write(path)
    made = adapted_bundle(adapter, base, folder)
    before = after = None
    if held is not None:
        before, after = (measure_lips(open_sampler(bundle), held) for bundle in (base, made))
        for name, figures in (("before", before), ("after", after)):
            options.report(
                f"held clips, {name}: r of opening {figures.opening:.3f}, of width {figures.width:.3f}, "
                f"spread of the opening {figures.spread:.2f} of the person's"
            )
        if after.score < before.score:
            options.report("the lips follow held clips no better than before: take more footage, or stay with the base")
    avatar = Avatar(path, folder, minutes, before, after)
    write_json(
        options.out / "report.json",
        {
            "minutes": minutes,
            "held before": None if before is None else before._asdict(),
            "held after": None if after is None else after._asdict(),
            "rank": options.rank,
            "seed": options.seed,
            "recipe": asdict(options.recipe),
        },
    )
    return avatar


def dataset_of(options: Options) -> Dataset:
    """The prepared dataset, or one that is prepared now of videos. Raises what `read_dataset` and `prepare` raise."""
    data = options.data
    if data.is_dir() and any((data / name).exists() for name in ("dataset.json", "steps")):
        return read_dataset(data)
    if not data.exists():
        raise InputError(f"expected a dataset or a folder of videos, got {data}, which does not exist; check the name")
    from ditto.training.prepare import Options as Preparation
    from ditto.training.prepare import prepare

    def report(step: str, done: int, total: int) -> None:
        if done == total or not done % SHOWN_EVERY:
            options.report(f"preparing: {step}, {done} of {total}")

    prepare(data, options.out / "dataset", Preparation(bundle=options.bundle, cuts=options.cuts), report=report)
    return read_dataset(options.out / "dataset")


def of_person(dataset: Dataset, person: str | None) -> Dataset:
    """The clips of one person.

    Raises:
        InputError: nobody of this name, or several people and none named.
    """
    people = sorted({clip.person or "" for clip in dataset.clips})
    if person is None:
        if len(people) > 1:
            names = ", ".join(name or "(no name)" for name in people)
            raise InputError(f"expected clips of one person in {dataset.folder}, got {names}; name one with --person")
        return dataset
    named = [name for name in people if name]
    if not named:
        raise InputError(f"expected clips of {person!r} in {dataset.folder}, got clips without names; leave the person out")
    if person not in named:
        raise InputError(f"expected a person of {', '.join(named)} in {dataset.folder}, got {person!r}; name another")
    return replace(dataset, clips=tuple(clip for clip in dataset.clips if clip.person == person))


def origin_of(clips: tuple[ClipInfo, ...], minutes: float, options: Options) -> str:
    """What adapter and bundle say about where the change comes from."""
    person = clips[0].person
    whose = f"of {person}" if person else "of one person"
    return (
        f"motion network adapted by ditto train avatar to {minutes:.1f} minutes {whose} ({len(clips)} clips), "
        f"{options.recipe.steps} steps, rank {options.rank}, seed {options.seed}"
    )


def fit(base: Bundle, corpus: Corpus, options: Options, origin: str) -> Adapter:
    """The adapter for a corpus. Raises what `motion_loop.train` raises."""
    recipe, sha256 = options.recipe, base.part("motion").sha256["weights"]
    torch.manual_seed(options.seed)
    halves, units = base_halves(base), units_of_bundle(base)
    objective = LowRankDenoising(with_adapter(halves.network, options.rank), recipe, options.rank, sha256)
    run = Run(recipe, options.seed, corpus.fingerprint(), options.out, units, options.report)

    def windows(step: int, numbers: range) -> Drawn:
        return draw(corpus, units, recipe, options.seed, step, numbers)

    workers = open_workers(options.device)
    trained = train(objective, windows, run, workers, None, options.resume)
    layers = layers_of(trained.network.cpu())
    teacher = copy.deepcopy(halves.network)
    add_layers(teacher, layers)
    options.report("the condition half for short look-ahead")
    short_run = replace(run, recipe=short_recipe(recipe), out=options.out / "short")
    pupil = ShortAdapter(teacher, halves.short, layers, short_run.recipe, options.rank)
    short = train(pupil, windows, short_run, workers, None, options.resume and begun(short_run.out, pupil))
    layers |= {SHORT + name: pair for name, pair in layers_of(short.network.cpu()).items()}
    config = postprocess_config(base)
    usual, target = gaps(torch_sampler(MotionNetwork.open(base.path, config), teacher), corpus)
    return Adapter(layers, sha256, base.licence, origin, usual, target)


def short_recipe(recipe: Recipe) -> Recipe:
    """Half as many updates, from the changes of the other half on."""
    return replace(recipe, steps=max(recipe.steps // 2, 1), batch=max(recipe.batch // 2, 1), adaptive=False)


class ShortAdapter(ShortDistillation):
    """`ShortDistillation` whose pupil is the base's half for short look-ahead with an adapter of its own.

    It starts with the changes of the other half, whose pupil the base's half has been.
    """

    def __init__(
        self, teacher: MotionDiffusion, short: MotionCondition, layers: Layers, recipe: Recipe, rank: int
    ) -> None:
        super().__init__(teacher, recipe)
        self.network = with_adapter(short, rank)
        for name, part in low_ranks(self.network).items():
            up, down = layers[f"condition.{name}"]
            with torch.no_grad():
                part.up.copy_(torch.from_numpy(up))
                part.down.copy_(torch.from_numpy(down))


def gaps(sampler: MotionSampler, corpus: Corpus) -> tuple[float, float]:
    """The running opening of the lips (`normalise_opening`), fu: what the network gives for this person, what the person has.

    Both are followed through the same clips as a stream follows them. The second stays within `GAP_LIMITS` of the base's.
    """
    base, count = sampler.network.postprocess, len(corpus.names)
    clips = np.linspace(0, count - 1, min(MEASURED_CLIPS, count)).astype(int).tolist()
    silent = {clip: silence_of(corpus.features[corpus.rows(clip)]) for clip in clips}
    spoken = np.concatenate([openings_of(corpus.motion[corpus.rows(clip)])[silent[clip] < 0.5] for clip in clips])
    # The running percentile falls slowly. So it begins where the person's openings have it.
    least, most = (limit * base.target_gap for limit in GAP_LIMITS)
    widest, of_person = base.usual_gap, base.target_gap
    if spoken.size:
        of_person = float(np.clip(np.percentile(spoken, 95), least, most))
    followed = []
    for clip in clips:
        _, state = sampled_state(sampler, corpus, clip, widest=widest)
        _, of_person = normalise_opening(corpus.motion[corpus.rows(clip)], silent[clip], of_person, base.target_gap)
        widest = state.widest
        followed.append((widest, of_person))
    usual, target = np.median(followed[len(followed) // 2 :], 0)
    return float(usual), min(max(float(target), least), most)


def open_sampler(bundle: Bundle) -> MotionSampler:
    """The sampler of a bundle's files, at the offline plan."""
    return MotionSampler(MotionNetwork.open(bundle.path, postprocess_config(bundle)))
