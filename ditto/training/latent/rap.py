"""Train RAP's denoiser on clips, as latents of a trained codec.

    ditto train rap CLIPS CODEC -o OUT [--preset small] [--motion] [--seed 0] [--resume]

OUT gets checkpoints, the curve (`log.jsonl`) and, at the end, `rap.safetensors` and `rap.json`.

Static-dynamic training: a piece of video is coded from its first frame on, whose latent is one frame. Half of the clips are
its first latents, half its last, which all have as many frames; so the network learns to begin and to go on.

Source: RAP (arXiv:2508.05115), training and losses. What the paper leaves open is marked as ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.config import RAP_FACE, RAP_PAPER, RAP_SMALL, RapConfig
from ditto.latent.rap import RapDenoiser, RapInputs
from ditto.latent.schedule import noised
from ditto.motion.motion import MOTION_SIZE
from ditto.training.latent.codec import read_codec
from ditto.training.latent.data import open_clips
from ditto.training.latent.flow import Options, shortened
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
class RapRecipe:
    """The numbers of one run, besides its data and seed.

    Attributes:
        config: of the denoiser.
        stages: of the loop.
        batch: clips of a process and an update.
        dynamic: share of clips that are the last latents of a piece.
        longest: share of updates with the longest clips; the others have one of the shorter lengths (ours).
        hide: share of clips without speech.
        hide_motion: share of clips without motion; 1 gives the bits of a run without the condition. Edited clips are never
            without it, and left out where there is no such condition.
        face: lambda, weight of the error in the face; the paper gives no number.
        temporal: mu, weight of the error of differences of neighbouring latents; the paper gives no number.
        variety: share of pieces of clips in colours and of a shape of their own; ours, for few portraits.
        optimizer, average, bfloat16, weight_decay, checkpoint_every: as `loop.Run`.
    """

    config: RapConfig
    stages: tuple[Stage, ...]
    batch: int
    dynamic: float = 0.5
    longest: float = 0.5
    hide: float = 0.1
    hide_motion: float = 0.5
    face: float = 1.0
    temporal: float = 0.5
    variety: float = 0.0
    optimizer: str = "adamw"
    average: float = 0.9999
    bfloat16: bool = True
    weight_decay: float = 0.0
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("dynamic", "longest", "hide", "hide_motion"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} from 0 to 1, got {getattr(self, name)}; give another share")
        if not self.stages or min(self.batch, *(stage.steps for stage in self.stages)) < 1:
            raise InputError("expected steps and batch of 1 or more; give other numbers")

    def shortened(self, steps: int | None) -> RapRecipe:
        """This recipe with so many updates in its stages, in proportion."""
        return self if steps is None else replace(self, stages=shortened(self.stages, steps))

    def with_motion(self) -> RapRecipe:
        """This recipe with motion as one more condition. The other weights begin, and all draws are, as without."""
        return replace(self, config=replace(self.config, motion_features=MOTION_SIZE))


# `paper`: batch 4 on 32 processes, Adam at 1e-5 from Wan's weights; from new ones 1e-4 (ours). It does not say how long.
PRESETS: Mapping[str, RapRecipe] = MappingProxyType(
    {
        "small": RapRecipe(
            RAP_SMALL, (Stage(1500, 2e-3, warmup=50),), 16, optimizer="muon", average=0.995, checkpoint_every=50
        ),
        "face": RapRecipe(
            RAP_FACE, (Stage(1500, 2e-3, warmup=50),), 16, variety=0.75, optimizer="muon", average=0.995,
            checkpoint_every=50,
        ),
        "paper": RapRecipe(RAP_PAPER, (Stage(250_000, 1e-4, final_rate=1.0, warmup=1000),), 4),
    }
)


def preset(name: str) -> RapRecipe:
    """The recipe of a name. Raises InputError: no recipe has it."""
    if name not in PRESETS:
        raise InputError(f"expected a preset of {', '.join(PRESETS)}, got {name!r}; give one of them")
    return PRESETS[name]


class RapBatch(NamedTuple):
    """Clips, and all randomness of their loss.

    Attributes:
        clips: names of the pieces' clips.
        latents, noise: (B, C, F, h, w), latents of the codec.
        mask: (B, 1, F, h, w) share of the positions that shows the face.
        given: what else the denoiser gets; its noisy latents are the objective's to make.
    """

    clips: tuple[str, ...]
    latents: Tensor
    noise: Tensor
    mask: Tensor
    given: RapInputs

    def to(self, device: torch.device) -> RapBatch:
        moved = (None if part is None else part.to(device) for part in self.given)
        tensors = (self.latents.to(device), self.noise.to(device), self.mask.to(device))
        return RapBatch(self.clips, *tensors, RapInputs(*moved))  # type: ignore[arg-type]


def rap_losses(velocity: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean square errors of velocities (B, C, F, h, w): of all, of the face (`mask` times the error), and of the differences
    of neighbouring latents; (B,) each.

    Source: RAP (arXiv:2508.05115), losses.
    """
    error = velocity - target

    def mean(values: Tensor) -> Tensor:
        return values.square().flatten(1).mean(1)

    return mean(error), mean(mask * error), mean(error.diff(dim=2))


class RapObjective(Objective):
    """RAP's loss: error of the velocity, of that in the face, and of its change in time."""

    network: RapDenoiser

    def __init__(self, network: RapDenoiser, recipe: RapRecipe) -> None:
        super().__init__()
        self.network, self._recipe = network, recipe

    def forward(self, batch: RapBatch) -> Terms:
        network, given = self.network, batch.given
        x0 = network.units.encode(batch.latents, given.reference)
        inputs = given._replace(noisy=noised(x0, batch.noise, given.time[:, None, None, None, None]))
        all_, face, temporal = rap_losses(network(inputs).float(), batch.noise - x0, batch.mask)
        losses = all_ + self._recipe.face * face + self._recipe.temporal * temporal
        return Terms(losses, {"velocity": all_.mean(), "face": face.mean(), "temporal": temporal.mean()})


class RapDraw:
    """The clips of an update, by its number.

    Raises:
        InputError: no piece of as many latents as the reference has.
    """

    def __init__(self, clips: Sequence[LatentClip], recipe: RapRecipe, seed: int) -> None:
        self._moved = recipe.config.motion_features > 0 and recipe.hide_motion < 1
        clips = [clip for clip in clips if self._moved or not clip.edited]
        self._clips = [clip for clip in clips if clip.latents.shape[1] == recipe.config.reference_latents]
        self._recipe, self._seed = recipe, seed
        if not self._clips:
            raise InputError(
                f"expected pieces of {recipe.config.reference_latents} latents, got none; encode pieces of that length"
            )

    def __call__(self, step: int, rank: int) -> RapBatch:
        recipe, config = self._recipe, self._recipe.config
        alike = np.random.default_rng((self._seed, step))  # all processes have clips of one length
        shorter = config.lengths[:-1]
        is_longest = not shorter or alike.random() < recipe.longest
        length = config.lengths[-1] if is_longest else shorter[alike.integers(len(shorter))]
        random = np.random.default_rng((self._seed, step, rank))
        torch_random = torch.Generator().manual_seed(int(random.integers(2**62)))
        pieces = [self._clips[random.integers(len(self._clips))] for _ in range(recipe.batch)]
        edited = torch.tensor([piece.edited for piece in pieces])
        dynamic = (random.random(recipe.batch) < recipe.dynamic).tolist()
        frames = length * config.frames_per_latent
        shape = (recipe.batch, config.channels, length, config.rows, config.columns)
        noise = torch.randn(shape, generator=torch_random)
        time, hidden, hidden_motion = torch.rand(3, recipe.batch, generator=torch_random)

        def cut(name: str, count: int, axis: int, padding: int = 0) -> Tensor:
            rows = []
            for piece, last in zip(pieces, dynamic, strict=True):
                values: Tensor = getattr(piece, name)
                if padding:  # in place of those that the first latent, of one frame, lacks
                    values = torch.cat([values[:1].expand(padding, -1), values])
                rows.append(values.narrow(axis, values.shape[axis] - count if last else 0, count))
            return torch.stack(rows)

        lacking = config.frames_per_latent - 1
        given = RapInputs(
            noisy=torch.empty(0),
            time=time,
            reference=cut("repeated", length, 1),
            static=~torch.tensor(dynamic),
            audio=cut("audio", frames, 0, lacking)[:, :, None],
            hide_audio=hidden < recipe.hide,
            motion=cut("motion", frames, 0, lacking) if self._moved else None,
            hide_motion=(hidden_motion < recipe.hide_motion) & ~edited if self._moved else None,
        )
        names = tuple(piece.name for piece in pieces)
        return RapBatch(names, cut("latents", length, 1), noise, cut("mask", length, 0)[:, None], given)


def train_rap(options: Options, recipe: RapRecipe, window: Window, workers: Workers | None = None) -> RapDenoiser:
    """Train RAP's denoiser and write it; the same options give the same bits on one machine.

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
            f"expected a denoiser of latents of {expected[0]} channels, {expected[1]} rows and columns and {expected[2]} "
            f"frames, got {config.channels}, {config.rows} and {config.columns}, {config.frames_per_latent}; give another "
            "preset"
        )
    clips = encode_clips(codec, found, window, config.reference_latents, seed=options.seed, variety=recipe.variety)
    torch.manual_seed(options.seed)
    network = new_rap(config, clips)
    words = {"recipe": asdict(recipe), "window": list(window), "data": found.fingerprint, "codec": fingerprint(codec)}
    run = Run(
        words, options.out, options.seed, recipe.optimizer, recipe.weight_decay, average=recipe.average,
        bfloat16=recipe.bfloat16, checkpoint_every=recipe.checkpoint_every, report=options.report,
    )  # fmt: skip
    draw = RapDraw(clips, recipe, options.seed)
    trained = train(RapObjective(network, recipe), draw, recipe.stages, run, workers, options.resume).cpu()
    assert isinstance(trained, RapDenoiser)
    if workers.rank == 0:
        write_network(options.out, "rap", trained, {"seed": options.seed, "words": words})
    return trained


def new_rap(config: RapConfig, clips: Sequence[LatentClip]) -> RapDenoiser:
    """A denoiser in the units of these clips, for speech features of one layer.

    Raises:
        InputError: speech or motion features of other sizes than the config's.
    """
    sizes = (clips[0].audio.shape[1], config.motion_features and clips[0].motion.shape[1])
    if sizes != (config.audio_features, config.motion_features) or config.audio_layers != 1:
        raise InputError(
            f"expected {config.audio_layers} layers of {config.audio_features} speech features and {config.motion_features} "
            f"motion features, got 1 of {sizes[0]} and {sizes[1]}; give another preset"
        )
    network = RapDenoiser(config)
    measure_units(network.units, clips, lambda clip: clip.repeated)
    measure_features(network.audio_units, (clip.audio for clip in clips))
    if network.motion is not None:
        measure_features(network.motion.embedder.units, (clip.motion for clip in clips), SMALLEST_MOVE)
    return network
