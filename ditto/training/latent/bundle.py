"""A bundle of V or RAP from what training left: the codec's folder, and the generator's.

    ditto train bundle CODEC GENERATOR -o BUNDLE
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ditto.bundle import Bundle
from ditto.errors import BundleError, InputError, NoBundleError
from ditto.latent.bundling import LatentParts, write_bundle
from ditto.latent.config import FlowConfig, RapConfig
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import FlowSampling
from ditto.latent.generators import RapLatency
from ditto.latent.motion_source import MotionConfig, shipped_motion
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.rap_sampler import RapSampling
from ditto.latent.region import Region
from ditto.latent.schedule import Guidance
from ditto.training.latent.codec import read_codec
from ditto.training.latent.hearing import read_audio
from ditto.training.latent.latents import codec_window, fingerprint
from ditto.training.latent.networks import read_network
from ditto.values import is_whole

# Guidance widens the opening of the lips: by how much, chosen for the portrait that no network saw (docs/latent.md).
FOLLOWED = Guidance(2.5)  # by motion, where there are edits: without it they act about a third as much as with lite
FLOW_LATENCIES: Mapping[str, FlowSampling] = {
    "quality": FlowSampling(steps=6, shift=3.0, audio=Guidance(2.25), reference=Guidance(), motion=FOLLOWED),
    "low": FlowSampling(steps=4, shift=3.0, audio=Guidance(2.0), reference=Guidance(), motion=FOLLOWED),
}
RAP_LATENCIES: Mapping[str, RapLatency] = {
    "quality": RapLatency(RapSampling(steps=6, audio=Guidance(3.0), motion=FOLLOWED), 11, 11),
    "low": RapLatency(RapSampling(steps=4, audio=Guidance(3.0), motion=FOLLOWED), 3, 5),
}


def bundle_of_training(codec: Path, generator: Path, out: Path, name: str, licence: str) -> Bundle:
    """Write the bundle of a trained codec and generator, with the speech that the generator was trained with, and with lite's
    motion where it was trained with motion.

    Raises:
        NoBundleError: one of the two was not trained there, or the speech's encoder lies in a bundle that is not here.
        BundleError: one of the two is damaged.
        InputError: they do not belong to each other, there are two generators, or something lies at `out`.
        OutputError: it cannot be written there.
    """
    coder, (top, left, size) = read_codec(codec), codec_window(codec)
    found = [name for name in ("flow", "rap") if (generator / f"{name}.json").is_file()] or ["flow"]
    if len(found) > 1:
        raise InputError(
            f"expected one generator in {generator}, got flow.json and rap.json; train each to a folder of its own"
        )
    (system,) = found
    network: FlowGenerator | RapDenoiser
    latencies: Any
    if system == "rap":
        network, latencies = read_network(generator, system, RapConfig, RapDenoiser), RAP_LATENCIES
    else:
        network, latencies = read_network(generator, system, FlowConfig, FlowGenerator), FLOW_LATENCIES
    words = _words(generator / f"{system}.json")
    if words["words"].get("codec") != fingerprint(coder):
        raise InputError(f"expected the codec that {generator} was trained with, got another one in {codec}; give that one")
    motion = MotionConfig(shipped_motion()) if network.config.motion_features else None
    region, audio = Region(words["side"], left, top, size), read_audio(generator, words["words"]["audio"])
    parts = LatentParts(coder, network, region, latencies, audio, motion)
    origin = f"ditto train {system}, seed {words['seed']}, clips {words['words']['data'][:12]}"
    return write_bundle(out, parts, name, licence, origin)


def _words(path: Path) -> Mapping[str, Any]:
    """What training says of a generator. Raises BundleError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        words = {name: found[name] for name in ("seed", "side")}
        words["words"] = {name: found["words"][name] for name in ("codec", "data", "audio")}
        if not (is_whole(words["side"]) and is_whole(words["seed"]) and isinstance(words["words"]["data"], str)):
            raise ValueError("a side, seed or data of another type")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise (NoBundleError if isinstance(error, FileNotFoundError) else BundleError)(
            f"expected what training says of a generator in {path}, got: {error}; train it again"
        ) from error
    return words
