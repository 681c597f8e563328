"""Bundles of V and RAP with tiny random networks, which act as real ones do but for what they show."""

from dataclasses import replace

import torch

from ditto.latent.bundling import LatentParts, write_bundle
from ditto.latent.codec import Codec
from ditto.latent.config import CODEC_TINY, FLOW_TINY, RAP_TINY, Level
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import FlowSampling
from ditto.latent.generators import RapLatency
from ditto.latent.motion_source import MotionConfig, shipped_motion
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.rap_sampler import RapSampling
from ditto.latent.region import Region
from ditto.latent.schedule import Guidance
from ditto.latent.speech import LiteConfig, MelConfig, MelSource, shipped_encoder

REGION = Region(side=32, left=8, top=16, size=16)
EIGHT_FRAMES = replace(  # a latent of RAP
    CODEC_TINY,
    features=(Level(16, time=2), Level(16, time=2), Level(16, time=2, space=1)),
    draw=(Level(16, time=2, space=1), Level(8, time=2), Level(8, time=2)),
)


def random_network(make, seed):
    """The network that `make` makes, always the same, with random numbers where it begins with zeros: all inputs act."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = make()
        for values in network.parameters():
            if not values.any():
                values += 0.1 * torch.randn(values.shape)
    return network


def hears_lite(parts):
    """The same, with features of lite's encoder as speech."""
    sizes = replace(parts.generator.config, audio_features=368)
    generator = random_network(lambda: type(parts.generator)(sizes), 1)
    return replace(parts, generator=generator, audio=LiteConfig(shipped_encoder()))


def with_motion(parts, still=True):
    """The same, with a condition on motion, which acts; the other numbers are those of `hears_lite`."""
    parts = hears_lite(parts)
    sizes = replace(parts.generator.config, motion_features=70)
    generator = random_network(lambda: type(parts.generator)(sizes), 1)
    generator.load_state_dict(parts.generator.state_dict(), strict=False)
    generator.motion.embedder.units.spread.fill_(0.05)
    return replace(parts, generator=generator, motion=MotionConfig(shipped_motion(), still))


def tiny_parts(system):
    """The parts of a bundle of "v" or "rap"; of "v motion" or "rap motion" with a condition on motion."""
    if system.endswith(" motion"):
        return with_motion(tiny_parts(system.removesuffix(" motion")))
    if system == "v":
        codec = random_network(lambda: Codec(CODEC_TINY), 0)
        sizes = replace(FLOW_TINY, channels=4, audio_features=368, width=32, motion_features=0)
        audio = Guidance(1.5)
        latencies = {
            "quality": FlowSampling(steps=2, audio=audio),
            "low": FlowSampling(steps=1, audio=audio, reference=Guidance()),
        }
        generator = random_network(lambda: FlowGenerator(sizes), 1)
        return LatentParts(codec, generator, REGION, latencies, LiteConfig(shipped_encoder()))
    codec = random_network(lambda: Codec(EIGHT_FRAMES), 0)
    sizes = replace(RAP_TINY, channels=4, audio_features=8, audio_layers=1, width=32, inner=64, motion_features=0)
    latencies = {
        "quality": RapLatency(RapSampling(steps=2), 11, 11),
        "low": RapLatency(RapSampling(steps=1, audio=Guidance(2.0)), 3, 5),
    }
    mel = MelSource(random_network(MelConfig(8, (4, 4)).network, 2))
    return LatentParts(codec, random_network(lambda: RapDenoiser(sizes), 1), REGION, latencies, mel)


def write_tiny(folder, system):
    """A bundle of "v" or "rap" in a folder, which is made."""
    return write_bundle(folder, tiny_parts(system), f"tiny {system}", "Apache-2.0", "random numbers")
