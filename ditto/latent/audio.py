"""From speech to the conditions of the latent generators.

V takes one vector a video frame: of `MelEncoder`, or rows of a streaming encoder as they are. RAP takes the hidden layers
of a speech encoder, `layers_at_frames`.

Source: V (arXiv:2606.01620), audio conditioning; the mel window is that of Wav2Lip (arXiv:2008.10010), which V cites.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ditto.errors import InputError

SAMPLE_RATE = 16_000
FPS = 25
MEL_BANDS, MEL_FRAMES = 80, 16  # a window of 0.2 s
MEL_HOP, MEL_WINDOW = 200, 800  # samples: 80 mel frames a second
MEL_LOW_HZ, MEL_HIGH_HZ = 55.0, 7600.0
PREEMPHASIS = 0.97
QUIETEST_DB, REFERENCE_DB = -100.0, 20.0
LARGEST_FEATURE = 5.0  # spreads from the mean that a feature may be; the prototype's, for clicks and long silence


class FeatureUnits(nn.Module):
    """Features in spreads from their mean, at most `LARGEST_FEATURE` of them. Mean 0 and spread 1 until set.

    Args:
        size: numbers of a feature.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def forward(self, features: Tensor) -> Tensor:
        """(..., size) -> the same shape."""
        return ((features - self.mean) / self.spread).clamp(-LARGEST_FEATURE, LARGEST_FEATURE)


class LatentEmbedder(nn.Module):
    """One vector a latent from the vectors of its video frames: one network for the first latent of a video, which has one
    frame, another for all later ones, whose frames are concatenated.

    Args:
        features: numbers of a frame.
        frames: of a latent.
        width: numbers of a latent's vector.

    Source: V (arXiv:2606.01620): two MLP embedders that compress by 4; the inner width of 4 x `width` is ours.
    """

    def __init__(self, features: int, frames: int, width: int) -> None:
        super().__init__()
        self.frames, self.units = frames, FeatureUnits(features)
        self.first, self.rest = (
            nn.Sequential(nn.Linear(size, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
            for size in (features, frames * features)
        )

    def forward(self, rows: Tensor, first: Tensor) -> Tensor:
        """The vectors of T latents, (B, T, width).

        Args:
            rows: (B, T * frames, features). Where latent 0 is the video's first, only the last of its rows is looked at.
            first: (B,) bool, whether latent 0 is the video's first.

        Raises:
            InputError: rows that are not those of whole latents.
        """
        if rows.ndim != 3 or rows.shape[1] % self.frames or rows.shape[2] != self.units.mean.numel():
            raise InputError(
                f"expected rows (B, {self.frames} n, {self.units.mean.numel()}), got {tuple(rows.shape)}; "
                "give the frames of whole latents"
            )
        rows = self.units(rows)
        latents: Tensor = self.rest(rows.unflatten(1, (-1, self.frames)).flatten(2))
        head = torch.where(first[:, None, None], self.first(rows[:, self.frames - 1 : self.frames]), latents[:, :1])
        return torch.cat([head, latents[:, 1:]], 1)


def mel_bank(device: torch.device | None = None) -> Tensor:
    """Triangular filters, (80, 401), each of area 1 over its band in Hz: Slaney's mel scale, linear below 1 kHz."""
    per_log_step = math.log(6.4) / 27

    def mel_of(hertz: float) -> float:
        return hertz / (200 / 3) if hertz < 1000 else 15 + math.log(hertz / 1000) / per_log_step

    mels = torch.linspace(mel_of(MEL_LOW_HZ), mel_of(MEL_HIGH_HZ), MEL_BANDS + 2, dtype=torch.float64, device=device)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * torch.exp((mels - 15) * per_log_step))
    bins = torch.arange(MEL_WINDOW // 2 + 1, dtype=torch.float64, device=device) * SAMPLE_RATE / MEL_WINDOW
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise, fall = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return (torch.minimum(rise, fall).clamp_min(0) * 2 / (high - low)).float()


def mel_windows(samples: Tensor) -> Tensor:
    """The log-mel window of each video frame that speech covers, (B, F, 80, 16), from -4 (silence) to 4.

    Frame i's window starts with mel frame floor(3.2 i), so it looks 0.2 s ahead, as Wav2Lip's. F = ceil(N / 640); sound
    after the end is silent.

    Args:
        samples: (B, N) at 16 kHz, N of 1 or more.

    Raises:
        InputError: no sample.
    """
    if samples.ndim != 2 or samples.shape[1] < 1:
        raise InputError(f"expected samples (B, N), N of 1 or more, got {tuple(samples.shape)}; give some speech")
    frames = -(-samples.shape[1] * FPS // SAMPLE_RATE)
    starts = torch.arange(frames, device=samples.device) * 16 // 5  # 80 mel frames for 25 video frames
    length = (int(starts[-1]) + MEL_FRAMES) * MEL_HOP
    padded = F.pad(samples, (1, max(length - samples.shape[1], 0)))
    emphasised = padded[:, 1:] - PREEMPHASIS * padded[:, :-1]
    window = torch.hann_window(MEL_WINDOW, device=samples.device)
    spectrum = torch.stft(
        emphasised, MEL_WINDOW, MEL_HOP, window=window, center=True, pad_mode="constant", return_complex=True
    ).abs()
    mel = mel_bank(samples.device) @ spectrum
    decibels = 20 * mel.clamp_min(10 ** (QUIETEST_DB / 20)).log10() - REFERENCE_DB
    level = (8 * (decibels - QUIETEST_DB) / -QUIETEST_DB - 4).clamp(-4, 4)
    return level.unfold(2, MEL_FRAMES, 1)[:, :, starts].transpose(1, 2)


class MelEncoder(nn.Module):
    """A vector of `width` numbers from the 80 x 16 mel window of a video frame. Each frame on its own: no state.

    The interface is that of Wav2Lip's audio encoder (arXiv:2008.10010), which V uses; the network is ours. A vector has mean
    0 and spread 1 (layer norm), so that a generator which is trained with the encoder needs no units of its features.
    """

    def __init__(self, width: int = 512, channels: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for count in channels:
            layers += [nn.Conv2d(before, count, 3, 2, 1), nn.GroupNorm(1, count), nn.SiLU(), _Residual(count)]
            before = count
        self.convolutions = nn.Sequential(*layers)
        places = -(-MEL_BANDS // 2 ** len(channels)) * -(-MEL_FRAMES // 2 ** len(channels))
        self.output = nn.Linear(before * places, width)

    def forward(self, windows: Tensor) -> Tensor:
        """(..., 80, 16) -> (..., width)."""
        convolved = self.convolutions(windows.reshape(-1, 1, MEL_BANDS, MEL_FRAMES)).flatten(1)
        found = F.layer_norm(self.output(convolved), (self.output.out_features,))
        return found.reshape(*windows.shape[:-2], -1)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = F.silu(self.norm(self.conv(x)))
        return x + added


def layers_at_frames(hidden: Tensor, frames: int) -> Tensor:
    """Hidden layers of a speech encoder at 50 Hz, at the times of video frames: (B, frames, N, c).

    Linear interpolation: frame i lies midway between rows 2 i and 2 i + 1. Rows after the last repeat it: encoders of the
    shape of wav2vec2 give one row less than 50 a second.

    Args:
        hidden: (B, N, T, c) of N layers, T of 1 or more.
    """
    if hidden.ndim != 4 or hidden.shape[2] < 1:
        raise InputError(f"expected hidden layers (B, N, T, c), T of 1 or more, got {tuple(hidden.shape)}; give others")
    row = 2 * torch.arange(frames, device=hidden.device)
    last = hidden.shape[2] - 1
    return (hidden[:, :, row.clamp(max=last)] + hidden[:, :, (row + 1).clamp(max=last)]).transpose(1, 2) / 2
