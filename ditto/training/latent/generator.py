"""Train a generator of latents on clips, as latents of a trained codec: what V's and RAP's have in common.

    ditto train flow|rap CLIPS CODEC -o OUT [--preset small] [--motion] [--seed 0] [--resume]
        [--speech lite|mel|BUNDLE] [--layers 4,8,12]

OUT gets checkpoints, the curve (`log.jsonl`) and, at the end, NAME.safetensors and NAME.json; audio.safetensors too, where an
encoder of the speech was trained with the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.codec import Codec
from ditto.latent.config import GeneratorConfig
from ditto.latent.speech import LiteConfig, SpeechSource, shipped_encoder
from ditto.motion.motion import MOTION_SIZE
from ditto.training.latent.codec import as_video, read_codec, strip
from ditto.training.latent.data import Clips, open_clips
from ditto.training.latent.hearing import Hearing, HearingObjective, audio_words, write_audio
from ditto.training.latent.latents import LatentClip, Window, codec_window, encode_clips, fingerprint
from ditto.training.latent.loop import Batch, Objective, Options, Recipe, on_device, train
from ditto.training.latent.networks import write_network
from ditto.training.runs import check_run
from ditto.training.workers import Workers, open_workers

R = TypeVar("R", bound="GeneratorRecipe")
N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class GeneratorRecipe(Recipe):
    """The numbers of one run, besides its data and seed.

    Attributes:
        batch: windows of a process and an update.
        hide: share of windows without speech, and without each other condition but motion.
        hide_motion: share of windows without motion; 1 gives the bits of a run without the condition. Edited clips are
            never without it, and left out where there is no such condition.
        variety: share of pieces of clips in colours and of a shape of their own; ours, for few portraits.
        weight_decay: as `loop.Run`.

    Raises:
        InputError: a number of `counts` under 1, or one of `shares` that is not from 0 to 1.
    """

    config: GeneratorConfig
    batch: int
    _: KW_ONLY
    hide: float = 0.1
    hide_motion: float = 0.5
    variety: float = 0.0
    weight_decay: float = 0.0

    counts: ClassVar[tuple[str, ...]] = ("batch", "checkpoint_every")
    shares: ClassVar[tuple[str, ...]] = ("hide", "hide_motion", "variety")

    def __post_init__(self) -> None:
        for name in self.shares:
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} from 0 to 1, got {getattr(self, name)}; give another share")
        counts = {name: getattr(self, name) for name in self.counts}
        for name, count in {**counts, "steps": min((stage.steps for stage in self.stages), default=0)}.items():
            if count < 1:
                raise InputError(f"expected {name} of 1 or more, got {count}; give another number")

    @property
    def shows_motion(self) -> bool:
        """Whether a window may have its motion."""
        return self.config.motion_features > 0 and self.hide_motion < 1

    def usable(self, clips: Sequence[LatentClip]) -> list[LatentClip]:
        """The clips that can be learned: without motion none that is edited."""
        return [clip for clip in clips if self.shows_motion or not clip.edited]

    def with_speech(self: R, speech: SpeechSource) -> R:
        """This recipe for speech from another source."""
        return replace(self, config=self.config.with_speech(speech.audio_layers, speech.audio_features))

    def with_motion(self: R) -> R:
        """This recipe with motion as one more condition. The other weights begin, and all draws are, as without."""
        return replace(self, config=replace(self.config, motion_features=MOTION_SIZE))


@dataclass(frozen=True)
class GeneratorSystem(Generic[R, N]):
    """A system with a generator, as its training needs it.

    Attributes:
        name: of its files.
        presets: recipes by name.
        piece: latents of the pieces that clips are cut into, by a recipe; None for whole clips.
        new: a network in the units of some clips, by a recipe; features of their speech as `check_features`.
        objective: the loss of a network.
        draw: the batches of a seed.
        stacks: whether it looks at layers of speech beside each other, as RAP does, or takes a row of numbers.
        shown: latents of the piece that `sample` gets, by a recipe.
        sample: latents (C, T, h, w) that a network generates for the first ones of a piece, in few steps, to look at.
    """

    name: str
    presets: Mapping[str, R]
    piece: Callable[[R], int | None]
    new: Callable[[R, Sequence[LatentClip], int | None], N]
    objective: Callable[[N, R], Objective]
    draw: Callable[[Sequence[LatentClip], R, int], Callable[[int, int], Batch]]
    stacks: bool
    shown: Callable[[R], int]
    sample: Callable[[N, LatentClip], Tensor]


def train_generator(
    system: GeneratorSystem[R, N],
    options: Options,
    codec: Path,
    recipe: R,
    workers: Workers | None = None,
    speech: SpeechSource | None = None,
) -> N:
    """Train a generator and write it; the same options give the same bits on one machine.

    Args:
        codec: the folder of a trained codec. The generator learns the window of the pictures that the codec was trained on.
        speech: where its speech comes from, as the recipe has it (`with_speech`); None: lite's encoder. An encoder that is
            trained too gets its weights.

    Raises:
        DatasetError, BundleError: clips or codec are missing or damaged.
        InputError: clips, codec or speech that do not fit the recipe, or a checkpoint of another run.
        TrainingError: a loss or gradient that is not finite.
        OutputError: a file cannot be written.
    """
    check_run(options.out, options.resume)
    workers = workers or open_workers(options.device)
    speech = speech or LiteConfig(shipped_encoder())
    if recipe.config.motion_features and not isinstance(speech, LiteConfig):
        raise InputError(
            f"expected lite's speech beside a condition on motion, as lite's motion is made of it, got {speech.model}; leave "
            "motion out, or take lite's speech"
        )
    clips, coder, window, config = open_clips(options.data), read_codec(codec), codec_window(codec), recipe.config
    expected = (coder.config.latent_channels, window[2] // coder.config.space, coder.config.time)
    if (config.channels, config.rows, config.frames_per_latent) != expected or config.rows != config.columns:
        raise InputError(
            f"expected a generator of latents of {expected[0]} channels, {expected[1]} rows and columns and {expected[2]} "
            f"frames, got {config.channels}, {config.rows} and {config.columns}, {config.frames_per_latent}; give another "
            "preset"
        )
    coded = encode_clips(
        coder, clips, window, system.piece(recipe), seed=options.seed, variety=recipe.variety, speech=speech
    )
    torch.manual_seed(options.seed)
    network = system.new(recipe, coded, None if speech.trained is None else speech.audio_features)
    words = {
        "recipe": asdict(recipe), "window": list(window), "data": clips.fingerprint, "codec": fingerprint(coder),
        "audio": audio_words(speech),
    }  # fmt: skip
    shown = options.tensorboard and workers.rank == 0
    picture = picture_of(system, coder, clips, window, recipe, speech) if shown else None
    run = options.run(recipe, words, picture, recipe.weight_decay)
    objective, draw = system.objective(network, recipe), system.draw(coded, recipe, options.seed)
    if speech.trained is not None:
        objective = HearingObjective(objective, speech.trained)
    trained = train(objective, draw, recipe.stages, run, workers, options.resume).cpu()
    if isinstance(trained, Hearing):
        assert speech.trained is not None
        speech.trained.cpu().load_state_dict(trained.speech.state_dict())
        trained = trained.generator
    assert isinstance(trained, type(network))
    if workers.rank == 0:
        write_audio(options.out, speech)
        write_network(options.out, system.name, trained, {"seed": options.seed, "side": clips.side, "words": words})
    return trained


def check_features(config: GeneratorConfig, clips: Sequence[LatentClip], features: int | None = None) -> None:
    """Raises InputError unless clips have the speech and motion features of a config.

    Args:
        features: of a row of speech, where an encoder that is trained too makes them of the clips' rows.
    """
    expected = (config.speech_size, config.motion_features)
    sizes = (features or clips[0].audio.shape[1], config.motion_features and clips[0].motion.shape[1])
    if sizes != expected:
        raise InputError(
            f"expected {expected[0]} speech and {expected[1]} motion features, got {sizes[0]} and {sizes[1]}; give another "
            "preset"
        )


def picture_of(
    system: GeneratorSystem[R, N], codec: Codec, clips: Clips, window: Window, recipe: R, speech: SpeechSource
) -> Callable[[nn.Module], Tensor]:
    """What draws a clip as a network generates it, below the clip itself; a held one, if there is any."""
    length = system.shown(recipe)
    info = clips.to_show(codec.config.frames(length))
    piece = encode_clips(codec, replace(clips, clips=(info,)), window, length, split=info.split, speech=speech)[0]
    real = as_video(clips.frames(info, 0, codec.config.frames(length)), window)
    source = as_video(clips.source(info)[None], window)

    @torch.no_grad()
    def draw(network: Any) -> Tensor:
        device = next(network.parameters()).device
        shown = on_device(piece, device)
        if isinstance(network, Hearing):
            network, shown = network.generator, shown._replace(audio=network.hear(shown.audio))
        latents = system.sample(network, shown)[None]
        made = codec.to(device).decode(codec.denormalise(latents), codec.references(source.to(device)))
        return strip(real[:, :, : made.shape[2]], made.cpu())

    return draw
