"""Train V's generator on clips, as latents of a trained codec.

    ditto train flow CLIPS CODEC -o OUT [--preset small] [--motion] [--seed 0] [--resume]

OUT gets checkpoints, the curve (`log.jsonl`) and, at the end, `flow.safetensors` and `flow.json`.

Teacher forcing: all blocks of a window at once, each from the true past with some noise.

Source: V (arXiv:2606.01620), algorithm 1. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.config import FLOW_FACE, FLOW_PAPER, FLOW_SMALL, FlowConfig
from ditto.latent.flow import FlowGenerator, FlowInputs
from ditto.latent.schedule import noised
from ditto.motion.motion import MOTION_SIZE
from ditto.training.latent.codec import read_codec
from ditto.training.latent.data import open_clips
from ditto.training.latent.latents import (
    SMALLEST_MOVE,
    LatentClip,
    Window,
    encode_clips,
    fingerprint,
    measure_features,
    measure_units,
    write_network,
)
from ditto.training.latent.loop import Objective, Run, Stage, Terms, train
from ditto.training.motion_loop import Workers, open_workers


@dataclass(frozen=True)
class FlowRecipe:
    """The numbers of one run, besides its data and seed.

    Attributes:
        config: of the generator.
        stages: of the loop.
        batch: windows of a process and an update.
        first: share of windows that begin with the video.
        references: a window sees 1 to this many.
        portrait: share of windows whose first reference is the portrait, not a frame of the clip; ours.
        time_mean, time_spread: noise levels are sigmoid of a normal with these; one for each block (ours).
        context_time: largest noise level of the past, one for each block (ours).
        hide: share of windows without speech, and independently without references.
        hide_motion: share of windows without motion; 1 gives the bits of a run without the condition. Edited clips are
            never without it, and left out where there is no such condition.
        variety: share of pieces of clips in colours and of a shape of their own; ours, for few portraits.
        optimizer, average, bfloat16, weight_decay, checkpoint_every: as `loop.Run`.
    """

    config: FlowConfig
    stages: tuple[Stage, ...]
    batch: int
    first: float = 0.3
    references: int = 3
    portrait: float = 0.4
    time_mean: float = 0.0
    time_spread: float = 1.0
    context_time: float = 0.7
    hide: float = 0.1
    hide_motion: float = 0.5
    variety: float = 0.0
    optimizer: str = "adamw"
    average: float = 0.9999
    bfloat16: bool = True
    weight_decay: float = 0.01
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("first", "portrait", "context_time", "hide", "hide_motion"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} from 0 to 1, got {getattr(self, name)}; give another share")
        if not self.stages or min(self.batch, self.references, *(stage.steps for stage in self.stages)) < 1:
            raise InputError("expected steps, batch and references of 1 or more; give other numbers")

    def shortened(self, steps: int | None) -> FlowRecipe:
        """This recipe with so many updates in its stages, in proportion."""
        return self if steps is None else replace(self, stages=shortened(self.stages, steps))

    def with_motion(self) -> FlowRecipe:
        """This recipe with motion as one more condition. The other weights begin, and all draws are, as without."""
        return replace(self, config=replace(self.config, motion_features=MOTION_SIZE))


def shortened(stages: Sequence[Stage], steps: int) -> tuple[Stage, ...]:
    """Stages with about so many updates in all, each with its share."""
    whole = sum(stage.steps for stage in stages)
    return tuple(replace(stage, steps=max(1, round(stage.steps * steps / whole))) for stage in stages)


# `paper`: batch 256 on 128 processes, 250 000 updates; optimizer and rate are ours. `small`: 12.5 CPU minutes gave lips that
# follow lite's with r .86 (small_recipe).
PRESETS: Mapping[str, FlowRecipe] = MappingProxyType(
    {
        "small": FlowRecipe(
            FLOW_SMALL, (Stage(1020, 2e-3, warmup=50),), 16, references=1, time_mean=0.3, optimizer="muon", average=0.995,
            weight_decay=0.0, checkpoint_every=50,
        ),
        "face": FlowRecipe(
            FLOW_FACE, (Stage(1400, 2e-3, warmup=50),), 10, references=1, time_mean=0.3, optimizer="muon", average=0.995,
            weight_decay=0.0, checkpoint_every=50,
        ),
        "paper": FlowRecipe(FLOW_PAPER, (Stage(250_000, 1e-4, final_rate=1.0, warmup=1000),), 2),
    }
)  # fmt: skip


def preset(name: str) -> FlowRecipe:
    """The recipe of a name. Raises InputError: no recipe has it."""
    if name not in PRESETS:
        raise InputError(f"expected a preset of {', '.join(PRESETS)}, got {name!r}; give one of them")
    return PRESETS[name]


class FlowBatch(NamedTuple):
    """Windows of clips, and all randomness of their loss.

    Attributes:
        clips: their names.
        latents: (B, C, N, h, w) of the codec.
        noise, context_noise: (B, C, N, h, w).
        given: what else the generator gets; its noisy and context latents are the objective's to make.
    """

    clips: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    context_noise: Tensor
    given: FlowInputs

    def to(self, device: torch.device) -> FlowBatch:
        moved = (None if part is None else part.to(device) for part in self.given)
        tensors = (self.latents.to(device), self.noise.to(device), self.context_noise.to(device))
        return FlowBatch(self.clips, *tensors, FlowInputs(*moved))  # type: ignore[arg-type]


class FlowObjective(Objective):
    """Mean square error of the velocities of noisy blocks: `noise - x_0` (V, algorithm 1)."""

    network: FlowGenerator

    def __init__(self, network: FlowGenerator) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: FlowBatch) -> Terms:
        network, given = self.network, batch.given
        x0 = network.units.encode(batch.latents, given.references[:, :, :1])
        block = network.config.block

        def per_latent(levels: Tensor) -> Tensor:
            return levels.repeat_interleave(block, 1)[:, None, :, None, None]

        inputs = given._replace(
            noisy=noised(x0, batch.noise, per_latent(given.time)),
            context=noised(x0, batch.context_noise, per_latent(given.context_time)),
        )
        errors = (network(inputs).float() - (batch.noise - x0)).square().flatten(1).mean(1)
        return Terms(errors, {})


class FlowDraw:
    """The windows of an update, by its number.

    Raises:
        InputError: no clip as long as a window.
    """

    def __init__(self, clips: Sequence[LatentClip], recipe: FlowRecipe, seed: int) -> None:
        self._moved = recipe.config.motion_features > 0 and recipe.hide_motion < 1
        clips = [clip for clip in clips if self._moved or not clip.edited]
        self._clips = [clip for clip in clips if clip.latents.shape[1] >= recipe.config.window]
        self._recipe, self._seed = recipe, seed
        if not self._clips:
            raise InputError(f"expected clips of {recipe.config.window} latents or more, got none; render longer ones")

    def __call__(self, step: int, rank: int) -> FlowBatch:
        recipe, config = self._recipe, self._recipe.config
        random = np.random.default_rng((self._seed, step, rank))
        torch_random = torch.Generator().manual_seed(int(random.integers(2**62)))
        batch, blocks = recipe.batch, config.window // config.block
        names, latents, references, audio, motion, first, edited = [], [], [], [], [], [], []
        for _ in range(batch):
            clip = self._clips[random.integers(len(self._clips))]
            last = clip.latents.shape[1] - config.window
            begins = last == 0 or random.random() < recipe.first
            start = 0 if begins else int(random.integers(1, last + 1))
            chosen = random.permutation(np.arange(1, clip.references.shape[1]))[: recipe.references]
            if random.random() < recipe.portrait or len(chosen) < recipe.references:
                chosen = np.concatenate([[0], chosen])[: recipe.references]
            names.append(clip.name)
            latents.append(clip.latents[:, start : start + config.window])
            references.append(clip.references[:, chosen])
            audio.append(_rows(clip.audio, start, config))
            motion.append(_rows(clip.motion, start, config))
            first.append(start == 0)
            edited.append(clip.edited)
        shape = (batch, config.channels, config.window, config.rows, config.columns)
        noise, context_noise = (torch.randn(shape, generator=torch_random) for _ in range(2))
        normal = torch.randn(batch, blocks, generator=torch_random)
        hidden = torch.rand(3, batch, generator=torch_random)
        given = FlowInputs(
            noisy=torch.empty(0),
            context=torch.empty(0),
            time=(recipe.time_mean + recipe.time_spread * normal).sigmoid(),
            context_time=recipe.context_time * torch.rand(batch, blocks, generator=torch_random),
            references=torch.stack(references),
            reference_count=torch.from_numpy(random.integers(1, len(chosen) + 1, batch)),
            first=torch.tensor(first),
            audio=torch.stack(audio),
            hide_audio=hidden[0] < recipe.hide,
            hide_references=hidden[1] < recipe.hide,
            motion=torch.stack(motion) if self._moved else None,
            hide_motion=(hidden[2] < recipe.hide_motion) & ~torch.tensor(edited) if self._moved else None,
        )
        return FlowBatch(tuple(names), torch.stack(latents), noise, context_noise, given)


def _rows(frames: Tensor, start: int, config: FlowConfig) -> Tensor:
    """Rows of the frames of a window that starts at a latent, (N * r, ...). Latent j >= 1 has frames r j - r + 1 to r j."""
    count = config.frames_per_latent
    first = count * start - count + 1
    rows = frames[max(first, 0) : count * (start + config.window) - count + 1]
    return torch.cat([rows[:1].expand(max(-first, 0), -1), rows])


@dataclass(frozen=True)
class Options:
    """One run of training of a generator.

    Attributes:
        data: a folder of clips (`ditto.training.latent.data`).
        codec: the folder of a trained codec (`ditto.training.latent.codec`).
        out: folder of the run.
        seed: of all randomness.
        resume: go on with the run in `out`.
        device: "cpu", "cuda" or "cuda:1".
        report: takes lines of progress.
    """

    data: Path
    codec: Path
    out: Path
    seed: int = 0
    resume: bool = False
    device: str = "cpu"
    report: Callable[[str], None] = field(default=print)


def train_flow(options: Options, recipe: FlowRecipe, window: Window, workers: Workers | None = None) -> FlowGenerator:
    """Train V's generator and write it; the same options give the same bits on one machine.

    Args:
        window: of the clips' pictures, as the codec was trained.

    Raises:
        DatasetError, BundleError: clips or codec are missing or damaged.
        InputError: clips or codec that do not fit the recipe, or a checkpoint of another run.
        TrainingError: a loss or gradient that is not finite.
        OutputError: a file cannot be written.
    """
    workers = workers or open_workers(options.device)
    found, codec, config = open_clips(options.data), read_codec(options.codec), recipe.config
    expected = (codec.config.latent_channels, window[2] // codec.config.space, codec.config.time)
    if (config.channels, config.rows, config.frames_per_latent) != expected or config.rows != config.columns:
        raise InputError(
            f"expected a generator of latents of {expected[0]} channels, {expected[1]} rows and columns and {expected[2]} "
            f"frames, got {config.channels}, {config.rows} and {config.columns}, {config.frames_per_latent}; give another "
            "preset"
        )
    clips = encode_clips(codec, found, window, None, seed=options.seed, variety=recipe.variety)
    torch.manual_seed(options.seed)
    network = new_flow(config, clips)
    words = {"recipe": asdict(recipe), "window": list(window), "data": found.fingerprint, "codec": fingerprint(codec)}
    run = Run(
        words, options.out, options.seed, recipe.optimizer, recipe.weight_decay, average=recipe.average,
        bfloat16=recipe.bfloat16, checkpoint_every=recipe.checkpoint_every, report=options.report,
    )  # fmt: skip
    draw = FlowDraw(clips, recipe, options.seed)
    trained = train(FlowObjective(network), draw, recipe.stages, run, workers, options.resume).cpu()
    assert isinstance(trained, FlowGenerator)
    if workers.rank == 0:
        write_network(options.out, "flow", trained, {"seed": options.seed, "words": words})
    return trained


def new_flow(config: FlowConfig, clips: Sequence[LatentClip]) -> FlowGenerator:
    """A generator in the units of these clips.

    Raises:
        InputError: speech or motion features of other sizes than the config's.
    """
    sizes = (clips[0].audio.shape[1], config.motion_features and clips[0].motion.shape[1])
    if sizes != (config.audio_features, config.motion_features):
        raise InputError(
            f"expected {config.audio_features} speech and {config.motion_features} motion features, got {sizes[0]} and "
            f"{sizes[1]}; give another preset"
        )
    network = FlowGenerator(config)
    measure_units(network.units, clips, lambda clip: clip.references[:, :1])
    measure_features(network.audio.units, (clip.audio for clip in clips))
    if network.motion is not None:
        measure_features(network.motion.embedder.units, (clip.motion for clip in clips), SMALLEST_MOVE)
    return network
