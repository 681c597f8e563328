"""LSE-C and LSE-D by the published SyncNet, for whoever has its file.

    python -m benchmarks.syncnet syncnet_v2.model REAL.mp4 MADE.mp4 ...

`syncnet_v2.model` is the file of github.com/joonson/syncnet_python (MIT), a torch state dict. Ditto neither ships nor fetches
it, and these lines were never run with it: tests hold shapes, the features of the sound and invariances, with random
weights. Run them on a real video first, whose offset has to come out near 0.

The numbers are only good beside those of the real video, of the same codec, in the same run: codecs alone move them by .4 to
1.2, and generators trained against SyncNet beat real video. Departures from that repository: the box of the face comes from
ditto's landmarks, not from S3FD; the frames go to the network as decoded, without the XVID and JPEG in between.

Sources: Chung and Zisserman, "Out of time", 2016 (network, offset, confidence); Prajwal et al., Wav2Lip, arXiv:2008.10010
(LSE-D, LSE-C); syncnet_python@6efbb1c (names and shapes of the layers, crop).
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._report import Figure, publish, rows_table
from benchmarks.faces import track
from ditto.commands import Arguments, run
from ditto.errors import BundleError, DittoError, InputError
from ditto.media.rates import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from ditto.training.motion_data import fill_gaps
from ditto.training.tracks import read_clip

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

SIDE = 224  # of a crop, pixels
FRAMES, ROWS_PER_FRAME = 5, 4  # a window of video; 100 rows of MFCC a second
MOST_OFFSET = 15
BATCH = 20
# The crop: half the longer side of the box, widened by this share, and lower by as much (syncnet_python, run_pipeline.py).
WIDEN = 0.4
MEDIAN_FRAMES = 13
GREY = 110  # beyond the picture


class Sync(NamedTuple):
    """LSE-D: the least mean distance; LSE-C: median less least; by how many frames the sound is late."""

    distance: float
    confidence: float
    late_frames: int


def _block(layer: nn.Module, channels: int) -> list[nn.Module]:
    norm = nn.BatchNorm3d if isinstance(layer, nn.Conv3d) else nn.BatchNorm2d
    return [layer, norm(channels), nn.ReLU()]


def _dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """1024 numbers of five frames of video, and of a fifth of a second of sound. Layers are named as in the file."""

    def __init__(self) -> None:
        super().__init__()
        audio = [
            *_block(nn.Conv2d(1, 64, 3, padding=1), 64),
            nn.MaxPool2d(1),
            *_block(nn.Conv2d(64, 192, 3, padding=1), 192),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_block(nn.Conv2d(192, 384, 3, padding=1), 384),
            *_block(nn.Conv2d(384, 256, 3, padding=1), 256),
            *_block(nn.Conv2d(256, 256, 3, padding=1), 256),
            nn.MaxPool2d(3, stride=2),
            *_block(nn.Conv2d(256, 512, (5, 4)), 512),
        ]
        video = [
            *_block(nn.Conv3d(3, 96, (5, 7, 7), stride=(1, 2, 2)), 96),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_block(nn.Conv3d(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)), 256),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), 256),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), 256),
            *_block(nn.Conv3d(256, 256, (1, 3, 3), padding=(0, 1, 1)), 256),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *_block(nn.Conv3d(256, 512, (1, 6, 6)), 512),
        ]
        self.netcnnaud, self.netfcaud = nn.Sequential(*audio), _dense()
        self.netcnnlip, self.netfclip = nn.Sequential(*video), _dense()

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        """(B, 1, 13, 20) -> (B, 1024)."""
        found: Tensor = self.netfcaud(self.netcnnaud(mfcc).flatten(1))
        return found

    def embed_video(self, crops: Tensor) -> Tensor:
        """(B, 3, 5, 224, 224) blue, green, red, 0 to 255 -> (B, 1024)."""
        found: Tensor = self.netfclip(self.netcnnlip(crops).flatten(1))
        return found


def load(file: Path) -> SyncNet:
    """The network with the weights of a file.

    Raises:
        BundleError: the file is missing, or no state dict of this network.
    """
    network = SyncNet()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (
        OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, pickle.UnpicklingError
    ) as error:  # fmt: skip
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(
            f"expected syncnet_v2.model of syncnet_python, a state dict, at {file}, got: {first}; download it again"
        ) from error
    return network.eval()


def mfcc(samples: npt.ArrayLike) -> Floats:
    """(N,) int16 at 16 kHz -> (13, rows) at 100 Hz, by the defaults of python_speech_features.

    Windows of 25 ms every 10 ms without weighting, pre-emphasis .97, 26 mel filters up to 8 kHz, DCT-II, lifter 22, the log
    energy in place of the first.
    """
    window, hop, size, filters, kept = 400, 160, 512, 26, 13
    x = np.asarray(samples, np.float64)
    x = np.append(x[:1], x[1:] - 0.97 * x[:-1])
    rows = 1 + max(0, -(-(len(x) - window) // hop))
    x = np.pad(x, (0, max(0, (rows - 1) * hop + window - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, window)[::hop][:rows]
    power = np.abs(np.fft.rfft(frames, size)) ** 2 / size
    mel = np.linspace(0.0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), filters + 2)
    corner = np.floor((size + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    at = np.arange(size // 2 + 1)
    low, middle, high = corner[:-2, None], corner[1:-1, None], corner[2:, None]
    rise, fall = (at - low) / np.maximum(middle - low, 1), (high - at) / np.maximum(high - middle, 1)
    bank = np.where((at >= low) & (at < middle), rise, np.where((at >= middle) & (at < high), fall, 0.0))
    tiny = np.finfo(float).eps
    loud = np.log(np.maximum(power @ bank.T, tiny))
    k, n = np.arange(kept)[:, None], np.arange(filters)
    cosines = np.sqrt(2.0 / filters) * np.cos(np.pi * k * (n + 0.5) / filters)
    found = (loud @ cosines.T) * (1 + 11 * np.sin(np.pi * np.arange(kept) / 22))
    found[:, 0] = np.log(np.maximum(power.sum(1), tiny))
    return np.asarray(found.T)


def crops(frames: Sequence[Image], landmarks: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Faces as SyncNet sees them: (T, 224, 224, 3) BGR.

    Args:
        frames: T pictures (H, W, 3) RGB.
        landmarks: (T, 478, 3) pixels, no NaN.
    """
    flat = np.asarray(landmarks, np.float64)[..., :2]
    low, high = flat.min(1), flat.max(1)
    box = np.concatenate([(low + high) / 2, (high - low).max(1, keepdims=True) / 2], 1)  # (T, 3) centre, half a side
    reach = MEDIAN_FRAMES // 2
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(box, ((reach, reach), (0, 0)), mode="edge"), MEDIAN_FRAMES, 0)
    cut = []
    for frame, (x, y, half) in zip(frames, np.median(windows, -1), strict=True):
        beyond = int(half * (1 + 2 * WIDEN))
        padded = cv2.copyMakeBorder(frame, beyond, beyond, beyond, beyond, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
        top, bottom = int(y + beyond - half), int(y + beyond + half * (1 + 2 * WIDEN))
        left, right = int(x + beyond - half * (1 + WIDEN)), int(x + beyond + half * (1 + WIDEN))
        face = padded[max(top, 0) : bottom, max(left, 0) : right]
        cut.append(cv2.resize(face, (SIDE, SIDE))[..., ::-1])
    return np.stack(cut)


@torch.no_grad()
def embeddings(network: SyncNet, faces: npt.NDArray[np.uint8], samples: npt.ArrayLike) -> tuple[Tensor, Tensor]:
    """Video and sound (W, 1024) of every window of five frames.

    Args:
        faces: (T, 224, 224, 3) of `crops`, 25 a second.
        samples: (N,) int16 at 16 kHz.

    Raises:
        InputError: fewer than six frames, or less sound than that.
    """
    sound = np.asarray(samples)
    windows = min(len(faces), len(sound) // SAMPLES_PER_FRAME) - FRAMES
    if windows < 1:
        raise InputError(f"expected 6 frames of video and sound or more, got {len(faces)} frames and {len(sound)} samples")
    rows = torch.from_numpy(mfcc(sound)).float()
    pictures = torch.from_numpy(faces).permute(3, 0, 1, 2)
    seen, heard = [], []
    for start in range(0, windows, BATCH):
        places = range(start, min(start + BATCH, windows))
        seen.append(network.embed_video(torch.stack([pictures[:, p : p + FRAMES] for p in places]).float()))
        spans = [rows[None, :, ROWS_PER_FRAME * p : ROWS_PER_FRAME * (p + FRAMES)] for p in places]
        heard.append(network.embed_sound(torch.stack(spans)))
    return torch.cat(seen), torch.cat(heard)


def compare(seen: Tensor, heard: Tensor) -> Sync:
    """Distance, confidence and offset of embeddings (W, 1024) each; the sound beyond the ends is zeros, as in the source."""
    padded = F.pad(heard, (0, 0, MOST_OFFSET, MOST_OFFSET))
    moved = [F.pairwise_distance(seen, padded[i : i + len(seen)]).mean() for i in range(2 * MOST_OFFSET + 1)]
    distances = torch.stack(moved)
    best = int(distances.argmin())
    return Sync(float(distances[best]), float(distances.median() - distances[best]), best - MOST_OFFSET)


def measure(network: SyncNet, video: Path) -> Sync:
    """LSE-D and LSE-C of a video at 25 frames a second with one face.

    Raises:
        InputError: another frame rate, no face in a fifth of the frames or more, or too short.
    """
    frames, samples, fps = read_clip(video)
    if abs(fps - FPS) > 0.01 or not frames:
        raise InputError(f"expected {FPS} frames a second in {video}, got {len(frames)} frames at {fps:g}; convert it")
    try:
        landmarks = fill_gaps(track(frames))
    except ValueError as error:
        raise InputError(f"expected one face in {video}, got {error}") from None
    pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
    return compare(*embeddings(network, crops(frames, landmarks), pcm))


def main() -> None:
    parser = Arguments(
        prog="python -m benchmarks.syncnet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("videos", type=Path, nargs="+", help="the real video first")
    options = parser.parse_args()
    try:
        network = load(options.model)
        found = [measure(network, video) for video in options.videos]
    except DittoError as error:
        parser.error(str(error))
    rows = [(v.name, s.distance, s.confidence, s.late_frames) for v, s in zip(options.videos, found, strict=True)]
    figures = [Figure(f"{name} LSE-C", confidence, beside={"LSE-D": distance}) for name, distance, confidence, _ in rows]
    publish("syncnet", figures, [rows_table("SyncNet", ("video", "LSE-D", "LSE-C", "sound late, frames"), rows)])


if __name__ == "__main__":
    run(main)
