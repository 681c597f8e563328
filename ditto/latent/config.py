"""The sizes of the latent systems: frozen values that check themselves, and read and write JSON. Imports no torch.

Every system has three: `..._PAPER` as its paper describes it, `..._SMALL` that a CPU trains and runs, and `..._TINY`
for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from math import prod
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from ditto.errors import InputError
from ditto.values import is_number

T = TypeVar("T")
G = TypeVar("G", bound="GeneratorConfig")
# Tokens of a window or a clip: the papers have 4096. Keys and values of so many fill the memory of no network of their sizes,
# and a damaged number must not.
MOST_TOKENS = 2**16
FRAME_NUMBERS = (0, 70, 265)  # of motion: none, or ditto's (`ditto.motion.motion`)


def to_json(config: Any) -> dict[str, Any]:
    """A config as an object of JSON."""
    words: dict[str, Any] = asdict(config)
    return words


def from_json(kind: type[T], words: object) -> T:
    """A config of a class from an object of JSON.

    Raises:
        InputError: names or types that the class does not have, or numbers that do not fit each other.
    """
    if not isinstance(words, Mapping):
        raise InputError(f"expected the numbers of a {kind.__name__}, got {type(words).__name__}; use another bundle")
    hints, names = get_type_hints(kind), {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if set(words) != names:
        others = ", ".join(sorted(map(str, set(words) ^ names)))
        raise InputError(
            f"expected the numbers of a {kind.__name__}, got missing or unknown {others}; use a bundle of this version"
        )
    return kind(**{name: _value(f"{name} of a {kind.__name__}", hints[name], words[name]) for name in names})


def _value(name: str, kind: Any, found: Any) -> Any:
    if get_origin(kind) is tuple:
        if isinstance(found, (list, tuple)):
            return tuple(_value(name, get_args(kind)[0], item) for item in found)
    elif isinstance(kind, type) and is_dataclass(kind):
        return from_json(kind, found)
    elif (kind is float and is_number(found)) or (kind is not float and type(found) is kind):
        return kind(found)
    raise InputError(f"expected {name} as {getattr(kind, '__name__', kind)}, got {found!r}; use another bundle")


@dataclass(frozen=True)
class Level:
    """One level of a codec: residual blocks, and a block that changes the size of the grid.

    Attributes:
        channels: of its output.
        time, space: factors by which it shrinks (encoder) or widens (decoder) the grid.
        blocks: residual blocks, before the change of size in the encoder, after it in the decoder.
        taps: frames that the convolution of the change of size sees: its own and those before.
        block_taps: those of the convolutions of the residual blocks.
    """

    channels: int
    time: int = 1
    space: int = 2
    blocks: int = 1
    taps: int = 3
    block_taps: int = 3


@dataclass(frozen=True)
class CodecConfig:
    """A codec: its encoder, the decoder with its references, and what it does to sizes (V, section 3.1).

    Attributes:
        stem: channels of the encoder's first convolution.
        features: levels of the encoder up to the features of references, f_c (E1 of the paper).
        bottleneck: the encoder's other levels (E2).
        latent_channels: channels of a latent frame.
        decoder_stem: channels of the decoder's first convolution.
        expand: levels of the decoder up to the references (D1); to the size and channels of f_c.
        reference_blocks, reference_heads: transformer blocks that look at the references (D_ref), and their heads.
        draw: the decoder's other levels, to the size of pictures (D2).
        patch: pixels of a side that the first convolution takes as one; the last one makes as many.
        stem_taps, last_taps: frames seen by the encoder's first and the decoder's last convolution.
        feed_forward: width of the transformer's feed-forward layers in widths of the model.
        aligned_features: add a linear function of the mean f_c to the decoder's own before D_ref. Ours: without it a
            small codec learns slowly that references and pictures lie on the same grid (small_recipe: 16.6 dB against
            20.1 after 130 steps).
        distance_bias: for each head, what the square of a distance on the grid takes off the scores of references; none
            if it is empty. Ours, for small codecs.

    Raises:
        InputError: sizes that do not fit together; the message names them.
    """

    stem: int
    features: tuple[Level, ...]
    bottleneck: tuple[Level, ...]
    latent_channels: int
    decoder_stem: int
    expand: tuple[Level, ...]
    reference_blocks: int
    reference_heads: int
    draw: tuple[Level, ...]
    patch: int = 1
    stem_taps: int = 3
    last_taps: int = 3
    feed_forward: int = 4
    aligned_features: bool = False
    distance_bias: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("features", "bottleneck", "expand", "draw"):
            if not getattr(self, name):
                raise InputError(f"expected levels of {name}, got none; give one or more")
        positive = ("stem", "latent_channels", "decoder_stem", "reference_heads", "patch", "stem_taps", "last_taps")
        for name in (*positive, "feed_forward"):
            _at_least(name, getattr(self, name), 1)
        _at_least("reference_blocks", self.reference_blocks, 0)
        for name in ("features", "bottleneck", "expand", "draw"):
            for level in getattr(self, name):
                for field in fields(level):
                    least = 0 if field.name == "blocks" else 1
                    _at_least(f"{field.name} of a level of {name}", getattr(level, field.name), least)
        for given, level in self.encoder_levels():
            _check_down(given, level)
        for given, level in self.decoder_levels():
            _check_up(given, level)
        if self.feature_channels != self.expand[-1].channels:
            raise InputError(
                f"expected the last levels of features and expand to have the same channels, got {self.feature_channels} "
                f"and {self.expand[-1].channels}; change one"
            )
        for what in ("time", "space"):
            into, back = _factor(self.bottleneck, what), _factor(self.expand, what)
            if into != back:
                raise InputError(f"expected bottleneck and expand to change {what} alike, got {into} and {back}; change one")
            into, back = _factor(self.features, what), _factor(self.draw, what)
            if into != back:
                raise InputError(f"expected features and draw to change {what} alike, got {into} and {back}; change one")
        if self.feature_channels % (4 * self.reference_heads):
            raise InputError(
                f"expected features of a multiple of 4 x {self.reference_heads} channels, got {self.feature_channels}; change "
                "the heads or the channels"
            )
        if self.distance_bias and len(self.distance_bias) != self.reference_heads:
            raise InputError(
                f"expected a distance_bias for each of {self.reference_heads} heads, got {len(self.distance_bias)}; give one "
                "for each, or none"
            )

    def encoder_levels(self) -> Iterator[tuple[int, Level]]:
        """The encoder's levels with the channels that each is given."""
        return _with_channels(self.stem, (*self.features, *self.bottleneck))

    def decoder_levels(self) -> Iterator[tuple[int, Level]]:
        """The decoder's levels with the channels that each is given."""
        return _with_channels(self.decoder_stem, (*self.expand, *self.draw))

    @property
    def feature_channels(self) -> int:
        """Channels of the features of references: C_f of the paper."""
        return self.features[-1].channels

    @property
    def time(self) -> int:
        """Frames of a latent frame, after the first latent frame, which is one frame."""
        return _factor((*self.features, *self.bottleneck), "time")

    @property
    def space(self) -> int:
        """Pixels of a side of a latent position."""
        return self.patch * _factor((*self.features, *self.bottleneck), "space")

    @property
    def feature_space(self) -> int:
        """Pixels of a side of a position of the features of references."""
        return self.patch * _factor(self.features, "space")

    def compression(self) -> float:
        """Numbers of a video over numbers of its latents."""
        return 3 * self.space**2 * self.time / self.latent_channels

    def latents(self, frames: int) -> int:
        """Latent frames of a video's first `frames` frames.

        Raises:
            InputError: the frames are not one more than a multiple of `time`.
        """
        if frames < 1 or (frames - 1) % self.time:
            raise InputError(
                f"expected {self.time} n + 1 frames at the start of a video, got {frames}; cut or repeat the last frame"
            )
        return 1 + (frames - 1) // self.time

    def frames(self, latents: int, first: bool = True) -> int:
        """Frames of so many latent frames; `first`: with the video's first, which is one frame."""
        return latents * self.time - (self.time - 1 if first else 0)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise InputError(f"expected {name} of {least} or more, got {value}; give another number")


def _factor(levels: Sequence[Level], what: str) -> int:
    return prod(getattr(level, what) for level in levels)


def _with_channels(given: int, levels: Sequence[Level]) -> Iterator[tuple[int, Level]]:
    for level in levels:
        yield given, level
        given = level.channels


def _check_down(given: int, level: Level) -> None:
    """The shortcut of a level of the encoder has no parameters, so its channels must divide (V, section 3.1)."""
    area = level.space**2
    if level.channels % area or given % level.time or given * area % level.channels:
        raise InputError(
            f"expected channels of the encoder that a change by {level.time} in time and {level.space} in space can "
            f"divide, got {given} to {level.channels}; take multiples of {area} that divide {given * area}"
        )


def _check_up(given: int, level: Level) -> None:
    if level.channels * level.space**2 % given:
        raise InputError(
            f"expected channels of the decoder that {given} divides after a change by {level.space} in space, got "
            f"{level.channels}; take a multiple of {given} / {level.space**2}"
        )


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """What the generators of V and RAP have in common.

    Attributes:
        channels: of a latent.
        rows, columns: of a latent.
        patch: a token covers patch x patch positions of a latent.
        frames_per_latent: video frames of a latent, but for the first of a video, which has one.
        width, heads, layers: of the transformer.
        audio_features: numbers of a frame's speech features; with several layers of them, of each.
        motion_features: numbers of a frame of motion, one more condition; 0 for none.
        motion_width: numbers of a latent's motion.
        frequencies: numbers of the sinusoidal embedding of time.
        theta: bases of the rotary frequencies of time, row and column.
        residual: whether latents are generated relative to that of the (first) reference.

    Raises:
        InputError: numbers that do not fit each other.
    """

    channels: int
    rows: int
    columns: int
    patch: int = 1
    frames_per_latent: int
    width: int = 1536
    heads: int = 12
    layers: int
    audio_features: int
    motion_features: int = 0
    motion_width: int = 64
    frequencies: int = 256
    theta: tuple[float, ...] = (10_000.0, 10_000.0, 10_000.0)
    residual: bool = False

    counts: ClassVar[tuple[str, ...]] = (
        "channels", "rows", "columns", "patch", "frames_per_latent", "width", "heads", "layers", "audio_features",
        "motion_width", "frequencies",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name in self.counts:
            _at_least(name, getattr(self, name), 1)
        head = self.width // self.heads
        if self.width % self.heads or head % 2 or head < 6:
            raise InputError(
                f"expected heads of an even width of 6 or more, got {self.width} / {self.heads}; choose another number of "
                "heads"
            )
        if self.rows % self.patch or self.columns % self.patch:
            raise InputError(
                f"expected a grid that patches of {self.patch} divide, got {self.rows} x {self.columns}; give another patch"
            )
        if self.motion_features not in FRAME_NUMBERS:
            raise InputError(
                f"expected motion_features of 0, 70 or 265, got {self.motion_features}; give one of them"
            )

    @property
    def tokens(self) -> int:
        """Of a latent."""
        return self.rows * self.columns // self.patch**2

    @property
    def token_size(self) -> int:
        """Numbers of a token of a latent before the network."""
        return self.channels * self.patch**2

    @property
    def speech_size(self) -> int:
        """Numbers of a frame's speech, of all layers."""
        return self.audio_features

    def with_speech(self: G, layers: int, features: int) -> G:
        """This config for other speech: layers of it, and numbers of each."""
        return replace(self, audio_features=layers * features)

    def _check_tokens(self, latents: int) -> None:
        """Raises InputError for a window or a clip of too many tokens."""
        if latents * self.tokens > MOST_TOKENS:
            raise InputError(
                f"expected at most {MOST_TOKENS} tokens at once, got {latents} latents of {self.tokens}; give smaller numbers"
            )

    def frames(self, latents: int, first: bool = True) -> int:
        """Frames of so many latents; `first`: with the video's first, which is one frame."""
        return latents * self.frames_per_latent - (self.frames_per_latent - 1 if first else 0)


@dataclass(frozen=True, kw_only=True)
class FlowConfig(GeneratorConfig):
    """V's generator (arXiv:2606.01620, implementation details). The defaults are the paper's.

    Attributes:
        window: latents of a training window; positions never leave it.
        block: latents that are generated together.
        audio_width: numbers of a latent's speech (ours: the paper gives none).
    """

    channels: int = 64
    rows: int = 8
    columns: int = 8
    frames_per_latent: int = 4
    layers: int = 24
    window: int = 32
    block: int = 4
    audio_features: int = 512
    audio_width: int = 64

    counts = (*GeneratorConfig.counts, "window", "block", "audio_width")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % self.block or self.window == self.block:
            raise InputError(
                f"expected a window of two or more whole blocks of {self.block}, got {self.window}; give another window"
            )
        self._check_tokens(self.window)


@dataclass(frozen=True, kw_only=True)
class RapConfig(GeneratorConfig):
    """RAP's denoiser (arXiv:2508.05115): the trunk of Wan 2.1 1.3B. The defaults are the paper's.

    Attributes:
        inner: width of the feed-forward parts of the transformer.
        reference_latents: latents of the reference repeated in time, and of a training clip.
        lengths: latents of a clip that may be generated, rising; training draws from them (ours, but for the last).
        inherited: latents that a clip takes over from the one before it.
        audio_layers: layers of the speech encoder that are looked at (the paper gives no number).
        window_slope, window_start: w and delta of the share of the window attention, `w i / layers + delta`.
    """

    channels: int = 128
    rows: int = 16
    columns: int = 16
    frames_per_latent: int = 8
    layers: int = 30
    inner: int = 8960
    reference_latents: int = 16
    lengths: tuple[int, ...] = (3, 5, 8, 11)
    inherited: int = 3
    audio_features: int = 768
    audio_layers: int = 12
    window_slope: float = 1.0
    window_start: float = 0.0

    counts = (*GeneratorConfig.counts, "inner", "inherited", "audio_layers")

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = list(self.lengths) == sorted(set(self.lengths))
        if (
            not self.lengths
            or not rising
            or self.lengths[0] < self.inherited
            or self.lengths[-1] > self.reference_latents
        ):
            raise InputError(
                f"expected rising lengths from {self.inherited} (inherited) to {self.reference_latents} (reference_latents), "
                f"got {self.lengths}; give others"
            )
        self._check_tokens(self.reference_latents)

    @property
    def speech_size(self) -> int:
        """Numbers of a frame's speech, of all layers."""
        return self.audio_layers * self.audio_features

    def with_speech(self, layers: int, features: int) -> RapConfig:
        return replace(self, audio_layers=layers, audio_features=features)

    def window_share(self, layer: int) -> float:
        """alpha of layer `layer` (from 0): the share of the window attention, between 0 and 1.

        Source: RAP, hybrid attention; the base of the index is ours, so that the first layer is full attention.
        """
        return min(max(self.window_slope * layer / self.layers + self.window_start, 0.0), 1.0)


# V, section 3.1: 512 x 512 pixels, /64 in space, /4 in time, 64 channels. The widths lie in a figure only; the encoder's are
# the powers of two whose count (496.3 M) is the paper's (497 M); the decoder's, ours, give 400.9 M (406 M).
CODEC_PAPER = CodecConfig(
    stem=128,
    features=(
        Level(256, blocks=2), Level(512, time=2, blocks=2), Level(1024, time=2, blocks=2), Level(1024, blocks=2),
    ),
    bottleneck=(Level(2048), Level(2048)),
    latent_channels=64,
    decoder_stem=1024,
    expand=(Level(512), Level(1024)),
    reference_blocks=6,
    reference_heads=16,
    draw=(Level(512, blocks=2), Level(256, time=2, blocks=2), Level(128, time=2, blocks=2), Level(64, blocks=2)),
)  # fmt: skip

# 2.7 M parameters, 8 pixels a side and 4 frames to 16 channels: 48 to 1. Convolutions at a high frame rate see fewer frames.
CODEC_SMALL = CodecConfig(
    stem=64,
    features=(Level(64, time=2, space=1, taps=1, block_taps=1), Level(64, time=2, space=1, taps=2, block_taps=2)),
    bottleneck=(Level(128),),
    latent_channels=16,
    decoder_stem=128,
    expand=(Level(64),),
    reference_blocks=2,
    reference_heads=4,
    draw=(Level(64, time=2, space=1, block_taps=2), Level(64, time=2, space=1, taps=2, block_taps=1)),
    patch=4,
    stem_taps=1,
    last_taps=1,
    feed_forward=3,
    aligned_features=True,
    distance_bias=(1.0, 0.3, 0.05, 0.0),
)

# RAP, section 4.1, takes the codec of LTX-Video (arXiv:2501.00103): /32 in space, /8 in time, 128 channels, pixels in patches
# of 4. This one has its geometry and widths, but is causal, so that it can stream, and its decoder sees references.
CODEC_RAP_PAPER = CodecConfig(
    stem=128,
    features=(Level(256, time=2, blocks=4), Level(512, time=2, blocks=3)),
    bottleneck=(Level(512, time=2, blocks=3),),
    latent_channels=128,
    decoder_stem=512,
    expand=(Level(512, time=2, blocks=3),),
    reference_blocks=6,
    reference_heads=8,
    draw=(Level(256, time=2, blocks=3), Level(128, time=2, blocks=3)),
    patch=4,
)
CODEC_RAP_SMALL = replace(CODEC_SMALL, bottleneck=(Level(128, time=2),), expand=(Level(64, time=2),))

# The strides of a real one in a few thousand parameters.
CODEC_TINY = CodecConfig(
    stem=8,
    features=(Level(16), Level(16, time=2), Level(16, time=2, space=1)),
    bottleneck=(Level(16),),
    latent_channels=4,
    decoder_stem=16,
    expand=(Level(16),),
    reference_blocks=1,
    reference_heads=2,
    draw=(Level(16, time=2, space=1), Level(8, time=2), Level(8)),
)

_NEAR = (100.0, 20.0, 20.0)  # bases for grids of a few positions and windows of a few latents

FLOW_PAPER = FlowConfig()
FLOW_SMALL = FlowConfig(
    channels=16, rows=4, columns=4, patch=2, width=192, heads=3, layers=6, window=16, audio_features=368,
    frequencies=128, theta=_NEAR, residual=True,
)  # fmt: skip
FLOW_FACE = replace(FLOW_SMALL, rows=8, columns=8)  # of 64 x 64 pixels
FLOW_TINY = FlowConfig(
    channels=8, rows=2, columns=2, width=64, heads=4, layers=2, window=16, audio_features=6, audio_width=16,
    motion_features=70, motion_width=8, frequencies=32, theta=_NEAR,
)  # fmt: skip
RAP_PAPER = RapConfig()
RAP_SMALL = RapConfig(
    channels=16, rows=4, columns=4, patch=2, width=192, heads=3, layers=6, inner=768, audio_features=368, audio_layers=1,
    frequencies=128, theta=_NEAR, residual=True,
)  # fmt: skip
RAP_FACE = replace(RAP_SMALL, rows=8, columns=8)
RAP_TINY = RapConfig(
    channels=8, rows=2, columns=2, width=64, heads=4, layers=3, inner=128, audio_features=6, audio_layers=2,
    motion_features=70, motion_width=8, frequencies=32, theta=_NEAR,
)  # fmt: skip
