"""Clips as latents of a trained codec, with what conditions a generator: what V's generator and RAP learn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ditto.errors import BundleError, InputError, NoBundleError
from ditto.latent.audio import FeatureUnits
from ditto.latent.codec import Codec
from ditto.latent.region import FACE_MARGIN
from ditto.latent.speech import LiteConfig, SpeechSource, shipped_encoder
from ditto.latent.tokens import LatentUnits
from ditto.training.latent.codec import Pictures, as_video, recoloured, warped, whole_latents
from ditto.training.latent.data import Clips
from ditto.values import is_whole

COLOURS, WARP = 0.06, 0.05  # spreads of what varies pieces, as in training of the codec
MEASURED = 1024  # features at a time, to spare memory
SMALLEST_SPREAD = 0.05  # of a feature of speech that hardly changes
SMALLEST_MOVE = 0.005  # of a number of motion: about what irises and brows move in talk, in face units

Window = tuple[int, int, int]  # top, left and side, in pixels of the clips' pictures


class LatentClip(NamedTuple):
    """A piece of a clip, coded from its first frame on, which is a latent of its own.

    Attributes:
        name: of the clip.
        latents: (C, T, h, w), normalised.
        references: (C, R, h, w) pictures coded alone: the portrait, then frames of the clip.
        repeated: (C, T, h, w) the portrait, repeated and coded as a video; what RAP looks at.
        audio: (F, A) rows of speech of the F frames, float32 or float16.
        motion: (F, D).
        mask: (T, h, w) share of each latent's position that shows the face.
        edited: whether it shows more than its speech, so that nobody can learn it without the motion.
    """

    name: str
    latents: Tensor
    references: Tensor
    repeated: Tensor
    audio: Tensor
    motion: Tensor
    mask: Tensor
    edited: bool = False


@torch.no_grad()
def encode_clips(
    codec: Codec,
    clips: Clips,
    window: Window,
    length: int | None,
    references: int = 8,
    seed: int = 0,
    split: str = "train",
    variety: float = 0.0,
    speech: SpeechSource | None = None,
) -> list[LatentClip]:
    """The clips of a split as latents.

    Args:
        codec: trained, with the statistics of its latents.
        window: of the pictures.
        length: latents of a piece; pieces overlap by about two thirds. None: whole clips.
        references: frames of the piece that are coded alone.
        seed: of their choice.
        variety: share of pieces in colours and of a shape of their own, so that a few portraits stand for more faces.
        speech: where its rows come from; None: lite's features, which clips keep.

    Raises:
        InputError: no clip is as long as a piece.
        BundleError: the speech's encoder is not here.
    """
    made = []
    rows_of = (speech or LiteConfig(shipped_encoder())).for_clips()
    side = window[2] // codec.config.space
    for place, info in enumerate(clips.of(split)):
        clip = clips.load(info)
        random = np.random.default_rng((seed, place))
        count = codec.config.frames(length) if length else whole_latents(codec.config, info.frames)
        latents = codec.config.latents(count)
        boxes = np.repeat(face_box(clips.side, window)[None], count, 0)
        mask = face_masks(boxes, side, codec.config.time)
        hop, heard = max(1, count // 3), rows_of(clip.sound, clip.features)
        for start in range(0, info.frames - count + 1, hop):
            end = start + count
            frames, portrait = clip.frames[start:end], clip.source[None]
            if variety and random.random() < variety:
                frames, portrait = np.split(_varied(np.concatenate([frames, portrait]), random), [count])
            source = as_video(portrait, window)
            repeated = _coded(codec, source.expand(-1, -1, count, -1, -1))
            shown = [as_video(frames[[i]], window) for i in random.integers(0, count, references)]
            alone = codec.normalise(codec.encode(torch.cat([source, *shown])).mean)[:, :, 0]
            made.append(
                LatentClip(
                    info.name, _coded(codec, as_video(frames, window)), alone.transpose(0, 1), repeated,
                    heard[start:end], torch.from_numpy(clip.motion[start:end]),
                    mask[:latents], info.edited,
                )
            )  # fmt: skip
    if not made:
        raise InputError(
            f"expected clips of {codec.config.frames(length or 1)} frames or more in {clips.folder}, got shorter ones; render "
            "longer ones"
        )
    return made


def _varied(pictures: Pictures, random: np.random.Generator) -> Pictures:
    """(T, S, S, 3) uint8 in other colours and of another shape, all alike."""
    changed = torch.from_numpy(warped(pictures, random.normal(0, WARP, (2, 2)))).float() / 255
    found: Pictures = (recoloured(changed, COLOURS, random) * 255).round().byte().numpy()
    return found


def codec_window(folder: Path) -> Window:
    """The window of the clips' pictures that the codec in a folder was trained on.

    Raises:
        NoBundleError: the codec's description is missing.
        BundleError: it is damaged.
    """
    try:
        top, left, side = json.loads((folder / "codec.json").read_text(encoding="utf-8"))["window"]
        if not (is_whole(top) and is_whole(left) and is_whole(side, 1)):
            raise ValueError(f"a window {[top, left, side]}")
        return top, left, side
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise (NoBundleError if isinstance(error, FileNotFoundError) else BundleError)(
            f"expected the window of a codec in {folder / 'codec.json'}, got: {error}; train it again"
        ) from error


def _coded(codec: Codec, video: Tensor) -> Tensor:
    return codec.normalise(codec.encode(video).mean)[0]


def face_box(side: int, window: Window) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The face in pictures of a window of clips: left, top, right and bottom, in sides of the window.

    Clips show a square of `FACE_MARGIN` times the box of the landmarks to each side of its middle.
    """
    top, left, size = window
    low, high = side * (0.5 - 0.25 / FACE_MARGIN), side * (0.5 + 0.25 / FACE_MARGIN)
    return np.array([low - left, low - top, high - left, high - top]) / size


def face_masks(boxes: np.ndarray[Any, np.dtype[np.float64]], side: int, frames: int) -> Tensor:
    """The share of each position of latents that a face covers: its boxes in all frames of a latent, 10 % larger.

    Args:
        boxes: (F, 4) left, top, right and bottom of each frame, in sides of the picture; F = frames n + 1.
        side: positions of a latent's side.
        frames: of a latent, but for the first, which has one.

    Returns:
        (n + 1, side, side).

    Source: RAP (arXiv:2508.05115), mask loss; union, margin and pooling are ours.
    """
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * 1.1
    edges = np.arange(side + 1) / side
    masks = []
    for start, end in [(0, 1)] + [(i, i + frames) for i in range(1, len(boxes), frames)]:
        low = (centre - half)[start:end].min(0)
        high = (centre + half)[start:end].max(0)
        covered = [
            (np.minimum(edges[1:], high[axis]) - np.maximum(edges[:-1], low[axis])).clip(0) * side for axis in (0, 1)
        ]
        masks.append(np.outer(covered[1], covered[0]))
    return torch.from_numpy(np.stack(masks).astype(np.float32))


def measure_units(units: LatentUnits, clips: Sequence[LatentClip], reference: Callable[[LatentClip], Tensor]) -> None:
    """Set the spread of the generator's latents, as `units` has them, to that of these clips."""
    units.spread.fill_(1.0)
    if units.residual:
        rows = [units.encode(clip.latents[None], reference(clip)[None])[0].flatten(1) for clip in clips]
        units.spread.copy_(torch.cat(rows, 1).square().mean(1).sqrt().clamp_min(1e-4))


def measure_features(units: FeatureUnits, rows: Sequence[Tensor], least: float = SMALLEST_SPREAD) -> None:
    """Set mean and spread of features to those of rows, (F, A) each; a spread is `least` or more."""
    for start in range(0, units.mean.numel(), MEASURED):
        some = slice(start, start + MEASURED)
        every = torch.cat([part[:, some].float() for part in rows])
        units.mean[some] = every.mean(0)
        units.spread[some] = every.std(0).clamp_min(least)


def fingerprint(network: nn.Module) -> str:
    """Of a network's weights: another one for other bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
