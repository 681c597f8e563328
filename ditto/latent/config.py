"""The sizes of the latent systems: frozen values that check themselves, and read and write JSON. Imports no torch.

Every system has three: `..._PAPER` as its paper describes it, `..._SMALL` that a CPU trains and runs, and `..._TINY`
for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from math import prod
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ditto.errors import InputError

T = TypeVar("T")


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
    hints = get_type_hints(kind)
    if set(words) != set(hints):
        others = ", ".join(sorted(map(str, set(words) ^ set(hints))))
        raise InputError(
            f"expected the numbers of a {kind.__name__}, got missing or unknown {others}; use a bundle of this version"
        )
    return kind(**{name: _value(f"{name} of a {kind.__name__}", hints[name], words[name]) for name in hints})


def _value(name: str, kind: Any, found: Any) -> Any:
    if get_origin(kind) is tuple:
        if isinstance(found, (list, tuple)):
            return tuple(_value(name, get_args(kind)[0], item) for item in found)
    elif isinstance(kind, type) and is_dataclass(kind):
        return from_json(kind, found)
    elif type(found) is kind or (kind is float and type(found) is int):
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
