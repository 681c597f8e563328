"""The codec of V: a causal autoencoder of video whose decoder looks at reference pictures (arXiv:2606.01620, section 3.1).

Video is (B, 3, T, H, W) in [-1, 1], latents (B, C, T', h, w). The first frame is a latent frame of its own, every later
latent frame holds `config.time` frames, and nothing depends on later frames: a stream gives what the whole video gives.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.errors import InputError
from ditto.latent.attention import Attention, KeysValues
from ditto.latent.config import CodecConfig
from ditto.latent.layers import (
    CausalConv,
    Down,
    Pass,
    Residual,
    RMSNorm,
    StreamState,
    Up,
    channels_to_space,
    distance_bias,
    grid_positions,
    space_to_channels,
)

LOG_VARIANCE = (-8.0, 4.0)  # smallest and largest
FIRST_LOG_VARIANCE = -5.0  # of an untrained encoder: noise that drowns no latent (small_recipe of our measurements)


class Encoded(NamedTuple):
    """The distribution of a video's latents, independent normals.

    Attributes:
        mean, log_variance: (B, C, T', h, w) float32.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Latents drawn with standard normal noise of their shape."""
        return self.mean + noise * (0.5 * self.log_variance).exp()


class References(NamedTuple):
    """Pictures of a person as generator and decoder use them; made once.

    Attributes:
        latents: (B, C, M, h, w), each picture encoded as a video of one frame (z_r of the paper).
        keys_values: of each block of D_ref, over the M rows columns cells of the pictures' features (f_c).
        aligned: (B, 1, rows, columns, C_f) what the config's `aligned_features` adds, if it does.
        grid: rows, columns.
    """

    latents: Tensor
    keys_values: tuple[KeysValues, ...]
    aligned: Tensor | None
    grid: tuple[int, int]


def _through(layers: nn.ModuleList, x: Tensor, chunk: Pass) -> Tensor:
    for layer in layers:
        x = layer(x, chunk)
    return x


class Encoder(nn.Module):
    """E of the paper: E1 to the features f_c, then E2 to the moments of the latents."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.stem = CausalConv(3 * config.patch**2, config.stem, config.stem_taps)
        self.features, self.bottleneck = nn.ModuleList(), nn.ModuleList()
        for place, (given, level) in enumerate(config.encoder_levels()):
            layers = self.features if place < len(config.features) else self.bottleneck
            layers.extend(Residual(given, level.block_taps) for _ in range(level.blocks))
            layers.append(Down(given, level.channels, level.time, level.space, level.taps))
        last = config.bottleneck[-1].channels
        self.norm, self.last = RMSNorm(last), CausalConv(last, 2 * config.latent_channels, gain=0.5)
        with torch.no_grad():
            self.last.conv.bias[config.latent_channels :].fill_(FIRST_LOG_VARIANCE)

    def forward(self, video: Tensor, chunk: Pass) -> tuple[Tensor, Tensor]:
        """(B, T, H, W, 3) -> moments (B, T', h, w, 2 C) and features (B, T', rows, columns, C_f)."""
        features = x = _through(self.features, self.stem(space_to_channels(video, self.patch), chunk), chunk)
        x = _through(self.bottleneck, x, chunk)
        return self.last(F.silu(self.norm(x)), chunk), features


class ReferenceBlock(nn.Module):
    """A block of D_ref: attention within a frame, attention to the references, a feed-forward layer.

    The paper gives the order; norms and the fixed positions, which are added to what queries, keys and values are made of,
    are ours. References have no order: they are a set.
    """

    def __init__(self, channels: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.reference_norm, self.feed_norm = (RMSNorm(channels) for _ in range(4))
        self.self_attention, self.cross_attention = Attention(channels, heads), Attention(channels, heads)
        self.widen = nn.Linear(channels, feed_forward * channels)
        self.narrow = nn.Linear(feed_forward * channels, channels)
        for last in (self.self_attention.output, self.narrow):  # an untrained block passes its frames on
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def keys_values(self, features: Tensor, position: Tensor) -> KeysValues:
        """Of references' features (B, M, L, C): over M L tokens."""
        tokens = (self.reference_norm(features) + position).flatten(1, 2)
        return self.cross_attention.keys_values(tokens)

    def forward(self, x: Tensor, position: Tensor, references: KeysValues | None, bias: Tensor | None) -> Tensor:
        """(B, T, L, C) -> the same; `bias` as `Attention.attend` takes it, for the tokens of one frame."""
        frames = x.shape[:2]
        tokens = (self.self_norm(x) + position).flatten(0, 1)
        x = x + self.self_attention(tokens)[0].unflatten(0, frames)
        if references is not None:
            queries = self.cross_attention.queries((self.cross_norm(x) + position).flatten(1, 2))
            if bias is not None:
                bias = bias.repeat(1, x.shape[1], references.keys.shape[2] // bias.shape[-1])
            found = self.cross_attention.output(self.cross_attention.attend(queries, references, bias))
            x = x + found.unflatten(1, x.shape[1:3])
        fed: Tensor = self.narrow(F.gelu(self.widen(self.feed_norm(x)), approximate="tanh"))
        return x + fed


class Decoder(nn.Module):
    """D of the paper: D1 to the size of f_c, D_ref, then D2 to pictures."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.patch, self._bias = config.patch, config.distance_bias
        channels = config.feature_channels
        self.stem = CausalConv(config.latent_channels, config.decoder_stem)
        self.expand, self.draw = nn.ModuleList(), nn.ModuleList()
        for place, (given, level) in enumerate(config.decoder_levels()):
            layers = self.expand if place < len(config.expand) else self.draw
            layers.append(Up(given, level.channels, level.time, level.space, level.taps))
            layers.extend(Residual(level.channels, level.block_taps) for _ in range(level.blocks))
        self.aligned = nn.Linear(channels, channels) if config.aligned_features else None
        self.reference = nn.ModuleList(
            ReferenceBlock(channels, config.reference_heads, config.feed_forward) for _ in range(config.reference_blocks)
        )
        last = config.draw[-1].channels
        self.norm, self.last = RMSNorm(last), CausalConv(last, 3 * config.patch**2, config.last_taps, gain=0.5)

    def references(self, features: Tensor, latents: Tensor) -> References:
        """Of the features f_c (B, M, rows, columns, C_f) and latents (B, C, M, h, w) of M pictures."""
        rows, columns, channels = features.shape[2:]
        position = grid_positions(rows, columns, channels, features)
        tokens = features.flatten(2, 3)
        keys_values = tuple(cast(ReferenceBlock, block).keys_values(tokens, position) for block in self.reference)
        aligned = None if self.aligned is None else self.aligned(features.mean(1, keepdim=True))
        return References(latents, keys_values, aligned, (rows, columns))

    def forward(self, latents: Tensor, references: References | None, chunk: Pass) -> Tensor:
        """(B, T', h, w, C) -> (B, T, H, W, 3)."""
        x = self._look_at(_through(self.expand, self.stem(latents, chunk), chunk), references)
        x = _through(self.draw, x, chunk)
        return channels_to_space(self.last(F.silu(self.norm(x)), chunk), self.patch)

    def _look_at(self, x: Tensor, references: References | None) -> Tensor:
        rows, columns, channels = x.shape[2:]
        position = grid_positions(rows, columns, channels, x)
        bias = distance_bias(rows, columns, self._bias, x) if self._bias else None
        if references is not None and references.aligned is not None:
            x = x + references.aligned
        tokens = x.flatten(2, 3)
        for place, block in enumerate(self.reference):
            tokens = block(tokens, position, None if references is None else references.keys_values[place], bias)
        return tokens.reshape(x.shape)


class Codec(nn.Module):
    """Video to latents and back. See the module's docstring for shapes.

    The latents that a generator works on have zero mean and unit deviation in each channel: `normalise` and `denormalise`,
    with statistics of the training set that `measure_latents` of the training stores here (as LTX-Video does).
    """

    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_deviation", torch.ones(config.latent_channels))

    def encode(self, video: Tensor) -> Encoded:
        """The latents of a whole video.

        Raises:
            InputError: frames that are not `time` n + 1, a size that latents do not divide, or no video of 3 channels.
        """
        self._check_video(video, first=True)
        return self._encode(video, Pass())[0]

    def encode_stream(self, video: Tensor, state: StreamState) -> tuple[Encoded, StreamState]:
        """The latents of a video's next frames.

        Args:
            video: `time` n + 1 frames at the start of the stream, `time` n later.
            state: of the frames before; `StreamState()` at the start.

        Raises:
            InputError: as `encode`.
        """
        self._check_video(video, state.first)
        chunk = Pass(state)
        return self._encode(video, chunk)[0], chunk.state()

    def _encode(self, video: Tensor, chunk: Pass) -> tuple[Encoded, Tensor]:
        moments, features = self.encoder(video.movedim(1, -1).contiguous(), chunk)
        mean, log_variance = moments.float().movedim(-1, 1).chunk(2, 1)
        return Encoded(mean, log_variance.clamp(*LOG_VARIANCE)), features

    def references(self, pictures: Tensor) -> References:
        """What the decoder sees of M pictures (B, 3, M, H, W), each a video of one frame.

        Raises:
            InputError: no picture, or a size that latents do not divide.
        """
        if pictures.ndim == 5 and not pictures.shape[2]:
            raise InputError("expected one or more reference pictures, got none; give one, or decode without references")
        self._check_video(pictures[:, :, :1], first=True)
        shape = (pictures.shape[0], pictures.shape[2])
        encoded, features = self._encode(pictures.movedim(2, 1).flatten(0, 1).unsqueeze(2), Pass())
        latents = encoded.mean[:, :, 0].unflatten(0, shape).movedim(1, 2)
        return self.decoder.references(features[:, 0].unflatten(0, shape), latents)

    def decode(self, latents: Tensor, references: References | None = None) -> Tensor:
        """The video of latents that start with a video's first; not limited to [-1, 1].

        Raises:
            InputError: other channels than the config's, or references of another size or number of rows.
        """
        self._check_latents(latents, references)
        return self._decode(latents, references, Pass())

    def decode_stream(
        self, latents: Tensor, state: StreamState, references: References | None = None
    ) -> tuple[Tensor, StreamState]:
        """The video of a stream's next latents: `config.frames(T', state.first)` frames.

        Args:
            latents: one or more.
            state: of the latents before; `StreamState()` at the start. Not reset with a generator's window.
            references: the same at every call.

        Raises:
            InputError: as `decode`.
        """
        self._check_latents(latents, references)
        chunk = Pass(state)
        return self._decode(latents, references, chunk), chunk.state()

    def _decode(self, latents: Tensor, references: References | None, chunk: Pass) -> Tensor:
        video: Tensor = self.decoder(latents.movedim(1, -1).contiguous(), references, chunk)
        return video.float().movedim(-1, 1)

    def normalise(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T', h, w) as a generator sees them."""
        return (latents - self._per_channel(self.latent_mean)) / self._per_channel(self.latent_deviation)

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        return latents * self._per_channel(self.latent_deviation) + self._per_channel(self.latent_mean)

    def _per_channel(self, values: Tensor) -> Tensor:
        return values[:, None, None, None]

    def _check_video(self, video: Tensor, first: bool) -> None:
        if video.ndim != 5 or video.shape[1] != 3:
            raise InputError(f"expected video of (B, 3, T, H, W), got {tuple(video.shape)}; reorder its axes")
        frames, height, width = video.shape[2:]
        space, time = self.config.space, self.config.time
        if not height or not width or height % space or width % space:
            raise InputError(f"expected a height and width of multiples of {space}, got {height} x {width}; resize or pad")
        if first:
            self.config.latents(frames)
        elif not frames or frames % time:
            raise InputError(
                f"expected {time} n frames after the start of a stream, got {frames}; keep the rest for the next chunk"
            )

    def _check_latents(self, latents: Tensor, references: References | None) -> None:
        channels = self.config.latent_channels
        if latents.ndim != 5 or latents.shape[1] != channels or not latents.shape[2]:
            raise InputError(
                f"expected latents of (B, {channels}, T, h, w), got {tuple(latents.shape)}; use those of this codec"
            )
        if references is None:
            return
        widening = self.config.space // self.config.feature_space
        grid = (latents.shape[3] * widening, latents.shape[4] * widening)
        if references.grid != grid or references.latents.shape[0] != latents.shape[0]:
            here, there = latents.shape[0], references.latents.shape[0]
            raise InputError(
                f"expected references of a grid of {grid} for {here} videos, got {references.grid} for {there}; make them of "
                "pictures of the video's size"
            )
