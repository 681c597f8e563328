"""Train the codec on clips (V, arXiv:2606.01620, section 3.1; small_recipe of our measurements for the small one).

    python -m ditto.training.latent.data PORTRAITS SPEECH CLIPS
    ditto train codec CLIPS -o OUT [--preset small] [--seed 0] [--resume]

OUT gets checkpoints, the curve (`log.jsonl`) and, at the end, `codec.safetensors` and `codec.json` (`read_codec`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ditto.errors import InputError
from ditto.latent.codec import Codec, Encoded
from ditto.latent.config import CODEC_PAPER, CODEC_RAP_SMALL, CODEC_SMALL, CodecConfig
from ditto.training.latent.data import ClipInfo, Clips, open_clips
from ditto.training.latent.loop import Objective, Options, Recipe, Stage, Terms, train
from ditto.training.latent.networks import read_network, write_network
from ditto.training.runs import check_run
from ditto.training.workers import Workers, open_workers

MEASURED = 17, 125  # frames of the figures of held clips, or a little fewer: whole latents
SHOWN_FRAMES = 8  # of a clip, in a picture for TensorBoard
LONGEST_MEASURED = 197  # frames of a clip that the latents' statistics are measured on

Pictures = npt.NDArray[np.uint8]
Perceptual = Callable[[Tensor, Tensor], Tensor]


class Length(NamedTuple):
    """Clips of one length.

    Attributes:
        frames: a multiple of the codec's time, and one.
        batch: clips of a process and an update.
        share: of the updates.
    """

    frames: int
    batch: int
    share: float = 1.0


@dataclass(frozen=True)
class CodecStage(Stage):
    """A stage of the curriculum.

    Attributes:
        lengths: of clips; mixed, so that references and starts of streams, which are short, are never forgotten.
        decoder_only: train the decoder, and leave latents as they are.
        latent_noise: largest deviation of noise that the decoder gets with its latents, in deviations of the latents.
    """

    lengths: tuple[Length, ...] = ()
    decoder_only: bool = False
    latent_noise: float = 0.0


@dataclass(frozen=True)
class CodecRecipe(Recipe):
    """The numbers of one run, besides its data and seed; the stages are the curriculum.

    Attributes:
        window: top, left and side of the square of the clips' pictures that is learnt.
        pictures: side of the clips' pictures that this window is meant for; none: any that hold it.
        shift: pixels by which the window moves at random.
        references: pictures of the clip that the decoder sees, 1 to this many.
        portrait: share of clips whose first reference is the portrait, not a frame of the clip; ours: the portrait is what
            a bundle has.
        without_references: share of updates without references.
        without_weight: of their loss: it is much larger and would take over.
        pyramid: of L1 on the picture, on means of 2 x 2 and 4 x 4 pixels, and half of it on differences of neighbours.
        squares: of the mean square error.
        motion: by how much what differs from the first reference weighs more. Without it a codec copies the reference
            and looks good by PSNR.
        perceptual: of LPIPS, where its weights are present.
        divergence: of the latents' KL divergence from a standard normal, as a mean over numbers.
        colours: spread of the random colour matrix.
        warp: spread of a random affine change of the picture, in its sides: faces of other shapes than the few portraits'.
    """

    config: CodecConfig
    stages: tuple[CodecStage, ...]
    window: tuple[int, int, int]
    _: KW_ONLY
    pictures: int | None = None
    shift: int = 3
    references: int = 1
    portrait: float = 0.0
    without_references: float = 0.12
    without_weight: float = 0.3
    pyramid: float = 1.0
    squares: float = 4.0
    motion: float = 8.0
    perceptual: float = 1.0
    divergence: float = 1e-5
    colours: float = 0.06
    warp: float = 0.0
    optimizer: str = "muon"
    average: float = 0.99
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        top, left, side = self.window
        if min(top, left) < 0 or side < 1 or side % self.config.space:
            raise InputError(f"expected a window of a side of a multiple of {self.config.space}, got {self.window}; change it")
        if not self.stages or self.references < 1:
            raise InputError(f"expected a stage and a reference, got {len(self.stages)} and {self.references}; give one")
        for stage in self.stages:
            if stage.steps < 1 or not stage.lengths:
                raise InputError(f"expected a stage of steps and lengths, got {stage.steps} and {stage.lengths}; give some")
            for length in stage.lengths:
                self.config.latents(length.frames)


# Of the 80 x 80 pixels around a face, `face` is the box of its landmarks, 64 x 64, and `small` the mouth, 32 x 32. Stage 1
# alone drifts after its 17 frames by 4 dB; stage 2 has seen long streams, and leaves the latents valid (small_recipe).
# `...-rap` are the same with 8 frames a latent.
# `paper`: 256 x 256 pixels; its stages at 512 are these again on other clips. Batches are those of a process of 128.
def _small(config: CodecConfig) -> CodecRecipe:
    short = (Length(1, 12, 0.06), Length(1 + config.time, 12, 0.06))
    long = (Length(73, 2, 0.5), Length(97, 1, 0.25), Length(17, 8, 0.25))
    stages = (
        CodecStage(1800, 2.5e-3, lengths=(Length(17, 6, 0.88), *short)),
        CodecStage(800, 1e-3, 0.03, 20, long, decoder_only=True, latent_noise=0.1),
    )
    return CodecRecipe(config, stages, window=(42, 24, 32), pictures=80, portrait=0.4, without_references=0.1, warp=0.05)


def _face(config: CodecConfig) -> CodecRecipe:
    short = (Length(1, 12, 0.06), Length(1 + config.time, 8, 0.06))
    long = (Length(73, 1, 0.55), Length(97, 1, 0.2), Length(17, 4, 0.25))
    stages = (
        CodecStage(2200, 2.5e-3, lengths=(Length(17, 4, 0.88), *short)),
        CodecStage(900, 1e-3, 0.03, 20, long, decoder_only=True, latent_noise=0.1),
    )
    return CodecRecipe(config, stages, window=(14, 8, 64), pictures=80, portrait=0.4, without_references=0.1, warp=0.05)


PRESETS: Mapping[str, CodecRecipe] = MappingProxyType(
    {
        "small": _small(CODEC_SMALL),
        "face": _face(CODEC_SMALL),
        "small-rap": _small(CODEC_RAP_SMALL),
        "face-rap": _face(CODEC_RAP_SMALL),
        "paper": CodecRecipe(
            CODEC_PAPER,
            (
                CodecStage(400_000, 1e-4, 0.1, 1000, (Length(5, 4),)),
                CodecStage(80_000, 1e-5, 1.0, 1000, (Length(17, 2, 0.85), Length(5, 4, 0.1), Length(1, 8, 0.05))),
                CodecStage(80_000, 1e-5, 1.0, 1000, (Length(73, 1, 0.85), Length(5, 4, 0.1), Length(1, 8, 0.05))),
            ),
            window=(0, 0, 256), shift=0, references=3, without_references=0.1, without_weight=1.0, squares=0.0, motion=0.0,
            divergence=1e-5, colours=0.0, optimizer="adamw", average=0.9999, checkpoint_every=1000,
        ),
    }
)  # fmt: skip


class CodecBatch(NamedTuple):
    """What an update learns from.

    Attributes:
        clips: names of the B clips.
        video: (B, 3, T, side, side) in [-1, 1].
        pictures: (B, 3, M, side, side) references.
        noise: (B, C, T', h, w) standard normal.
        latent_noise: what the noise has more than the deviation of the latents' distribution, in deviations of the latents.
        with_references: whether the decoder sees the pictures.
    """

    clips: tuple[str, ...]
    video: Tensor
    pictures: Tensor
    noise: Tensor
    latent_noise: float
    with_references: bool


class Sampler:
    """Draws the batch of an update by its number: all of it from the seed, the number and the process.

    Raises:
        InputError: no clip to train on of a length of the recipe, or pictures smaller than its window.
    """

    def __init__(self, clips: Clips, recipe: CodecRecipe, seed: int) -> None:
        self._clips, self._recipe, self._seed = clips, recipe, seed
        self._fitting: dict[int, list[ClipInfo]] = {}
        for frames in sorted({length.frames for stage in recipe.stages for length in stage.lengths}):
            self._fitting[frames] = [clip for clip in clips.of("train") if clip.frames >= frames]
            if not self._fitting[frames]:
                raise InputError(
                    f"expected a clip of {frames} frames or more to train on in {clips.folder}, got none; render longer ones"
                )
        top, left, side = recipe.window
        if recipe.pictures not in (None, clips.side):
            raise InputError(
                f"expected clips of pictures of {recipe.pictures} pixels a side for this recipe, got {clips.side}; render "
                "them so, or take another preset"
            )
        if max(top, left) + side > clips.side:
            raise InputError(
                f"expected pictures that hold a window {recipe.window}, got {clips.side} a side; render larger ones"
            )
        self._ends = np.cumsum([stage.steps for stage in recipe.stages])

    def __call__(self, step: int, rank: int) -> CodecBatch:
        recipe = self._recipe
        stage = recipe.stages[int(np.searchsorted(self._ends, step, side="right"))]
        alike = np.random.default_rng((self._seed, step))  # the processes of an update agree on what is in the graph
        shares = np.array([length.share for length in stage.lengths])
        length = stage.lengths[alike.choice(len(shares), p=shares / shares.sum())]
        references = int(alike.integers(1, recipe.references + 1))
        with_references = bool(alike.random() >= recipe.without_references)
        own = np.random.default_rng((self._seed, step, rank))
        fitting = self._fitting[length.frames]
        names, videos, pictures = [], [], []
        for _ in range(length.batch):
            clip = fitting[own.integers(len(fitting))]
            start = int(own.integers(0, clip.frames - length.frames + 1))
            frames = [self._clips.frames(clip, start, length.frames)]
            frames += [self._clips.frames(clip, int(own.integers(clip.frames)), 1) for _ in range(references)]
            if recipe.portrait and own.random() < recipe.portrait:
                frames[1] = self._clips.source(clip)[None]
            changed = augmented(np.concatenate(frames), recipe, own)
            names.append(clip.name)
            videos.append(changed[:, : length.frames])
            pictures.append(changed[:, length.frames :])
        grid = recipe.window[2] // recipe.config.space
        shape = (length.batch, recipe.config.latent_channels, recipe.config.latents(length.frames), grid, grid)
        noise = torch.from_numpy(own.standard_normal(shape, np.float32))
        level = stage.latent_noise * float(own.random())
        return CodecBatch(tuple(names), torch.stack(videos), torch.stack(pictures), noise, level, with_references)


def augmented(frames: Pictures, recipe: CodecRecipe, random: np.random.Generator) -> Tensor:
    """(T, S, S, 3) uint8 -> (3, T, side, side) in [-1, 1]: moved, warped, mirrored, in other colours, all frames alike."""
    top, left, side = recipe.window
    if recipe.warp:
        frames = warped(frames, random.normal(0, recipe.warp, (2, 2)))
    limit = frames.shape[1] - side
    top, left = (int(np.clip(at + random.integers(-recipe.shift, recipe.shift + 1), 0, limit)) for at in (top, left))
    x = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + side, left : left + side])).float() / 255
    if random.random() < 0.5:
        x = x.flip(2)
    if recipe.colours and random.random() < 0.6:
        x = recoloured(x, recipe.colours, random)
    return (x * 2 - 1).movedim(-1, 0)


def recoloured(pictures: Tensor, spread: float, random: np.random.Generator) -> Tensor:
    """Pictures (..., 3) in [0, 1] in other colours: a random matrix near 1, brightness and contrast."""
    mixing = np.eye(3) + random.normal(0, spread, (3, 3))
    gain, lift = random.uniform(0.8, 1.2), random.normal(0, 0.04)
    return (pictures @ torch.from_numpy((gain * mixing.T).astype(np.float32)) + lift).clamp(0, 1)


def warped(frames: Pictures, change: npt.NDArray[np.float64]) -> Pictures:
    """(T, S, S, 3) uint8, changed alike around their middle by the affine matrix 1 + `change` (2, 2); borders are repeated."""
    middle, matrix = (frames.shape[1] - 1) / 2, np.eye(2) + change
    to_frame = np.concatenate([matrix, (middle - matrix.sum(1) * middle)[:, None]], 1)
    size, how = frames.shape[1:3], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack([cv2.warpAffine(frame, to_frame, size, flags=how, borderMode=cv2.BORDER_REPLICATE) for frame in frames])


def pyramid_l1(difference: Tensor) -> Tensor:
    """(B, 3, T, H, W) -> (B,): mean absolute difference of pixels, of means of 2 x 2 and 4 x 4, and half of that of the
    steps between neighbours. In place of LPIPS, whose weights may not be there.
    """
    batch = difference.shape[0]
    images = difference.movedim(2, 1).flatten(0, 1)

    def mean(values: Tensor) -> Tensor:
        return values.abs().reshape(batch, -1).mean(1)

    total = mean(images) + 0.5 * (mean(images.diff(dim=-1)) + mean(images.diff(dim=-2)))
    for _ in range(2):
        images = F.avg_pool2d(images, 2)
        total = total + mean(images)
    return total


def motion_weights(video: Tensor, reference: Tensor, strength: float) -> Tensor:
    """(B, 1, T, H, W), of mean 1: 1 + strength min(1, 4 |video - reference|), the difference averaged over colours."""
    moved = (video - reference).abs().mean(1, keepdim=True)
    weights = 1 + strength * (4 * moved).clamp(max=1)
    return weights / weights.mean()


def divergence(encoded: Encoded) -> Tensor:
    """(B,) the latents' KL divergence from a standard normal, as a mean over numbers (arXiv:1312.6114, appendix B)."""
    mean, log_variance = encoded
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).flatten(1).mean(1)


class CodecObjective(Objective):
    """The codec and its loss: reconstruction, weighted where pictures differ from the reference, and divergence.

    Args:
        recipe: weights of the terms.
        perceptual: LPIPS of two batches of pictures (N, 3, H, W), (N,); none where its weights are not there.
    """

    def __init__(self, recipe: CodecRecipe, perceptual: Perceptual | None = None) -> None:
        super().__init__()
        self.network: Codec = Codec(recipe.config)
        self._recipe, self._perceptual = recipe, perceptual

    def begin(self, stage: int) -> None:
        self.network.encoder.requires_grad_(not self._recipe.stages[stage].decoder_only)

    def forward(self, batch: CodecBatch) -> Terms:
        recipe, codec = self._recipe, self.network
        encoded = codec.encode(batch.video)
        latents = encoded.sample(batch.noise)
        if batch.latent_noise:
            spread = encoded.mean.detach().std((0, 2, 3, 4), keepdim=True)
            latents = latents + batch.latent_noise * spread * batch.noise
        made = codec.decode(latents, codec.references(batch.pictures) if batch.with_references else None)
        difference = made - batch.video
        weights = motion_weights(batch.video, batch.pictures[:, :, :1], recipe.motion)
        losses = recipe.pyramid * pyramid_l1(difference * weights)
        losses = losses + recipe.squares * (difference.square() * weights).flatten(1).mean(1)
        if self._perceptual is not None:
            images = (made.movedim(2, 1).flatten(0, 1), batch.video.movedim(2, 1).flatten(0, 1))
            losses = losses + recipe.perceptual * self._perceptual(*images).reshape(len(losses), -1).mean(1)
        if not batch.with_references:
            losses = losses * recipe.without_weight
        kl = divergence(encoded)
        figures = {"l1": difference.abs().mean() / 2, "kl": kl.mean(), "spread": encoded.mean.std()}
        return Terms(losses + recipe.divergence * kl, figures)


def installed_lpips(report: Callable[[str], None]) -> Perceptual | None:
    """LPIPS (Zhang et al., arXiv:1801.03924) where the package lpips and the weights of its AlexNet lie on this machine;
    nothing is fetched.
    """
    weights = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    try:
        import lpips
    except ImportError:
        report("LPIPS is not installed (package lpips): the loss is the pyramid of L1 alone")
        return None
    if not weights.is_file():
        report(f"LPIPS lacks its weights ({weights}): the loss is the pyramid of L1 alone")
        return None
    network = lpips.LPIPS(net="alex", verbose=False).requires_grad_(False).eval()

    def perceptual(made: Tensor, real: Tensor) -> Tensor:
        network.to(made.device)
        found: Tensor = network(made, real)
        return found.flatten()

    return perceptual


@torch.no_grad()
def measure_latents(codec: Codec, clips: Clips, window: tuple[int, int, int]) -> None:
    """Store mean and deviation of each channel of the training clips' latents in the codec, for `Codec.normalise`."""
    total, squares = torch.zeros(2, codec.config.latent_channels, dtype=torch.float64).unbind()
    count = 0
    for clip in clips.of("train"):
        frames = whole_latents(codec.config, min(clip.frames, LONGEST_MEASURED))
        mean = codec.encode(as_video(clips.frames(clip, 0, frames), window)).mean.double()
        total += mean.sum((0, 2, 3, 4))
        squares += mean.square().sum((0, 2, 3, 4))
        count += mean[:, 0].numel()
    mean = total / count
    codec.latent_mean.copy_(mean)
    codec.latent_deviation.copy_((squares / count - mean.square()).clamp(min=1e-8).sqrt())


def whole_latents(config: CodecConfig, frames: int) -> int:
    """The most frames, up to `frames`, that a stream's first latents are."""
    return frames - (frames - 1) % config.time


def as_video(frames: Pictures, window: tuple[int, int, int]) -> Tensor:
    """(T, S, S, 3) uint8 -> (1, 3, T, side, side) in [-1, 1], the window of the pictures."""
    top, left, side = window
    cut = np.ascontiguousarray(frames[:, top : top + side, left : left + side])
    return (torch.from_numpy(cut).float() / 127.5 - 1).movedim(-1, 0)[None]


class Figures(NamedTuple):
    """How well a codec draws held clips, as means over them.

    Attributes:
        clips: how many.
        with_reference, without_reference, repeated: PSNR in dB, of the codec with the source picture as reference, without
            one, and of the source picture shown all the time. A codec must beat the last.
        movement: cosine of the pixels' deviations from their mean over time, between codec and clip.
    """

    clips: int
    with_reference: float
    without_reference: float
    repeated: float
    movement: float


@torch.no_grad()
def evaluate(
    codec: Codec,
    clips: Clips,
    window: tuple[int, int, int],
    frames: int,
    extra: Callable[[ClipInfo], Pictures] | None = None,
) -> dict[str, Figures]:
    """Figures of held clips' first `frames` frames, as one stream: "known" portraits, and those "unseen" in training.

    Args:
        extra: gives (M, side, side, 3) references of a clip's portrait beside its source picture.
    """
    codec.eval()
    trained = {clip.portrait for clip in clips.of("train")}
    groups: dict[str, list[tuple[float, ...]]] = {"known": [], "unseen": []}
    for clip in clips.of("held"):
        if clip.frames < frames:
            continue
        real = as_video(clips.frames(clip, 0, frames), window)
        source = as_video(clips.source(clip)[None], window)
        latents = codec.encode(real).mean
        seen = source if extra is None else torch.cat([source, as_video(extra(clip), window)], 2)
        made, alone = codec.decode(latents, codec.references(seen)), codec.decode(latents)
        moving, moved = (x - x.mean(2, keepdim=True) for x in (real, made))
        cosine = float((moving * moved).sum() / (moving.norm() * moved.norm()).clamp(min=1e-9))
        found = (psnr(made, real), psnr(alone, real), psnr(source.expand_as(real), real), cosine)
        groups["known" if clip.portrait in trained else "unseen"].append(found)
    return {
        name: Figures(len(found), *(float(value) for value in np.mean(found, 0))) for name, found in groups.items() if found
    }


def psnr(made: Tensor, real: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    error = ((made.clamp(-1, 1) - real) / 2).square().mean().item()
    return -10 * math.log10(max(error, 1e-10))


def read_codec(folder: Path) -> Codec:
    """The codec that `train_codec` wrote, as `read_network`."""
    return read_network(folder, "codec", CodecConfig, Codec)


class Made(NamedTuple):
    """The end of a run: where the codec lies, and its figures on held clips by frames and group."""

    folder: Path
    figures: Mapping[str, Mapping[str, Figures]]


def train_codec(options: Options, recipe: CodecRecipe, workers: Workers | None = None) -> Made:
    """Train a codec, measure its latents and evaluate it; the same options give the same bits on one machine.

    Raises:
        DatasetError: no clips, or damaged ones.
        InputError: clips that do not fit the recipe, or a checkpoint of another run.
        TrainingError: a loss or gradient that is not finite.
        OutputError: a file cannot be written.
    """
    check_run(options.out, options.resume)
    workers = workers or open_workers(options.device)
    clips = open_clips(options.data)
    sampler = Sampler(clips, recipe, options.seed)
    torch.manual_seed(options.seed)
    objective = CodecObjective(recipe, installed_lpips(options.report) if recipe.perceptual else None)
    run = options.run(recipe, {"recipe": asdict(recipe), "data": clips.fingerprint}, picture_of(clips, recipe))
    codec = train(objective, sampler, recipe.stages, run, workers, options.resume).cpu()
    assert isinstance(codec, Codec)
    measure_latents(codec, clips, recipe.window)
    lengths = [whole_latents(codec.config, frames) for frames in MEASURED]
    figures = {str(frames): evaluate(codec, clips, recipe.window, frames) for frames in lengths}
    if workers.rank == 0:
        kept = {frames: {name: group._asdict() for name, group in groups.items()} for frames, groups in figures.items()}
        words = {"window": recipe.window, "seed": options.seed, "figures": kept, "words": run.words}
        write_network(options.out, "codec", codec, words)
        for line in lines(figures):
            options.report(line)
    return Made(options.out, figures)


def picture_of(clips: Clips, recipe: CodecRecipe) -> Callable[[Any], Tensor]:
    """What draws a clip as a codec decodes it, below the clip itself; a held one, if there is any."""
    frames = max(length.frames for stage in recipe.stages for length in stage.lengths)

    @torch.no_grad()
    def draw(codec: Codec) -> Tensor:
        clip, device = clips.to_show(frames), next(codec.parameters()).device
        real = as_video(clips.frames(clip, 0, frames), recipe.window)
        source = as_video(clips.source(clip)[None], recipe.window)
        made = codec.decode(codec.encode(real.to(device)).mean, codec.references(source.to(device)))
        return strip(real, made.cpu())

    return draw


def strip(real: Tensor, made: Tensor) -> Tensor:
    """Videos (1, 3, T, H, W) in [-1, 1] as one picture in [0, 1]: up to 8 frames side by side, those of `real` above."""
    frames = np.unique(np.linspace(0, real.shape[2] - 1, SHOWN_FRAMES).round().astype(int)).tolist()
    return torch.cat([x[0, :, frames].movedim(1, 2).flatten(2) / 2 + 0.5 for x in (real, made)], 1)


def lines(figures: Mapping[str, Mapping[str, Figures]]) -> Sequence[str]:
    """Figures in words."""
    return [
        f"{name} portraits, {frames} frames, {f.clips} clips: {f.with_reference:.1f} dB with the reference, "
        f"{f.without_reference:.1f} without, {f.repeated:.1f} repeated; movement {f.movement:.2f}"
        for frames, groups in figures.items()
        for name, f in groups.items()
    ]
