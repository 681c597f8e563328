"""Add the features of the streaming encoder to a corpus of motions; see `ditto.training.corpus`.

    python -m ditto.training.corpus_features DATA TRACKS ENCODER motions.npz corpus.npz [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ditto.lite.networks.speech_encoder import SpeechEncoder, SpeechEncoderState
from ditto.lite.speech_encoder import FRAMES_PER_HOP
from ditto.media.audio import HOP_SAMPLES
from ditto.media.rates import SAMPLES_PER_FRAME
from ditto.training.export_encoder import load_encoder
from ditto.training.speech_data import augment, read_train

Array = npt.NDArray[np.float32]


@torch.no_grad()
def features_of(encoder: SpeechEncoder, start: SpeechEncoderState, samples: Array) -> Array:
    """(N,) samples -> (ceil(N / 640), 368) features, as a stream gives them."""
    frames = -(-len(samples) // SAMPLES_PER_FRAME)
    hops = -(-frames // FRAMES_PER_HOP) + 1
    padded = np.pad(samples, (0, hops * HOP_SAMPLES - len(samples))).astype(np.float32)
    found: Array = encoder(torch.from_numpy(padded)[None], start)[0][0].numpy()
    return found[FRAMES_PER_HOP : FRAMES_PER_HOP + frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "tracks", "encoder", "motions", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder, start = load_encoder(options.encoder / "encoder.safetensors")
    sound = {clip.name: clip.waveform for clip in read_train(options.data, options.tracks)}
    random = np.random.default_rng(options.seed)
    with np.load(options.motions) as motions:
        columns = {name: motions[name] for name in motions.files}
    features = []
    for name, kind, room, length in zip(*(columns[k] for k in ("names", "kind", "room", "lengths")), strict=True):
        if kind == "held":
            with np.load(options.tracks / f"{name}.npz") as track:
                samples = track["samples"]
        else:
            samples = sound[name]
        rows = features_of(encoder, start, augment(samples, random) if room else samples)[:length]
        if len(rows) < length:  # a tracked clip may be a frame longer than its sound
            rows = np.concatenate([rows, np.repeat(rows[-1:], length - len(rows), 0)])
        features.append(rows.astype(np.float16))
    np.savez(options.out, features=np.concatenate(features), **columns)
    print(f"{len(features)} clips, {sum(map(len, features)) / 1500:.1f} minutes")


if __name__ == "__main__":
    main()
