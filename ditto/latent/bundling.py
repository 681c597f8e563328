"""Bundles of V and RAP: parts `codec`, `generator` and `audio`, each with its sizes and weights; `motion` where the generator
has a condition on motion, `views` where there are more references than the portrait (docs/latent.md).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ditto.bundle import FORMAT, Bundle, check_keys, seal
from ditto.errors import BundleError, InputError, NoBundleError, OutputError
from ditto.latent.audio import FPS, SAMPLE_RATE
from ditto.latent.block_performer import LatentPerformer
from ditto.latent.codec import Codec
from ditto.latent.config import CodecConfig, FlowConfig, RapConfig, from_json, to_json
from ditto.latent.flow_network import FlowGenerator
from ditto.latent.flow_sampler import FlowSampling
from ditto.latent.generators import FlowBlocks, Generator, RapBlocks, RapLatency, check_fit, check_motion
from ditto.latent.loading import load_network
from ditto.latent.motion_source import MotionConfig
from ditto.latent.rap_network import RapDenoiser
from ditto.latent.region import Region
from ditto.latent.speech import HUBERT, LITE, MEL, LiteConfig, MelConfig, SpeechSource, source_of
from ditto.latent.views import ViewsConfig
from ditto.values import is_same

C = TypeVar("C")
T = TypeVar("T")
N = TypeVar("N", bound=nn.Module)

VERSION = 1  # of these parts
V, RAP = "v", "rap"  # `motion_space` of a bundle, and the model of its generator
CODEC = "latent_codec"  # models of the other parts
MOTION, VIEWS = "lite_motion", "lite_views"
LATENCIES = "quality", "low"  # every bundle has both: for recordings, and for live sessions


@dataclass(frozen=True)
class LatentParts:
    """What a bundle holds.

    Attributes:
        codec: its network.
        generator: of V or RAP.
        region: that the codec codes.
        latencies: name -> how the generator is sampled: `FlowSampling` for V, `RapLatency` for RAP.
        audio: where the speech comes from.
        motion: which of the shipped motion networks of lite; None: nothing can be controlled.
        views: more references, rendered by lite; None: the portrait alone.
    """

    codec: Codec
    generator: FlowGenerator | RapDenoiser
    region: Region
    latencies: Mapping[str, FlowSampling] | Mapping[str, RapLatency]
    audio: SpeechSource
    motion: MotionConfig | None = None
    views: ViewsConfig | None = None


def write_bundle(folder: str | os.PathLike[str], parts: LatentParts, name: str, licence: str, origin: str) -> Bundle:
    """Write a bundle; its folder appears under its name when it is complete.

    Raises:
        InputError: something of that name is there; parts that do not fit each other.
        OutputError: it cannot be written there.
    """
    target = Path(folder)
    if target.exists():
        raise InputError(f"expected a new folder for the bundle, got {target}, which is there; give another name")
    performer_of(parts)  # what cannot be opened is not written
    system = V if isinstance(parts.generator, FlowGenerator) else RAP
    networks: dict[str, nn.Module] = {"codec": parts.codec, "generator": parts.generator}
    latencies = {latency: to_json(sampling) for latency, sampling in parts.latencies.items()}
    configs = {
        "codec": (CODEC, {"sizes": to_json(parts.codec.config), "region": to_json(parts.region)}),
        "generator": (system, {"sizes": to_json(parts.generator.config), "latencies": latencies}),
        "audio": (parts.audio.model, {"sizes": to_json(parts.audio.sizes)}),
    }
    if parts.audio.trained is not None:
        networks["audio"] = parts.audio.trained
    if parts.motion is not None:
        configs["motion"] = (MOTION, {"sizes": to_json(parts.motion)})
    if parts.views is not None:
        configs["views"] = (VIEWS, {"sizes": to_json(parts.views)})
    described = {
        "format": FORMAT, "name": name, "licence": licence, "origin": origin, "fps": FPS, "sample_rate": SAMPLE_RATE,
        "motion_space": system,
        "parts": {
            part: {
                "model": model,
                "config": {"version": VERSION, **config},
                "files": {"weights": f"{part}.safetensors"} if part in networks else {},
                "sha256": {},
            }
            for part, (model, config) in configs.items()
        },
    }  # fmt: skip
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            new = Path(beside) / target.name
            new.mkdir()
            for part, network in networks.items():
                tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
                save_file(tensors, new / f"{part}.safetensors")
            (new / "bundle.json").write_text(json.dumps(described), encoding="utf-8")
            seal(new)
            os.replace(new, target)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{target} cannot be written: {error}; free some space or choose another folder") from error
    return Bundle.open(target)


def open_parts(bundle: Bundle) -> LatentPerformer:
    """The performer of a bundle whose files are as it says.

    Raises:
        NoBundleError: the speech encoder lies in another bundle, which is not here.
        BundleError: a part is missing or damaged, of another system or version, or does not fit the others.
    """
    system = bundle.motion_space
    codec_words = _words(bundle, "codec", (CODEC,), ("sizes", "region"))
    generator_words = _words(bundle, "generator", (system,), ("sizes", "latencies"))
    audio_words = _words(bundle, "audio", (LITE, MEL, HUBERT), ("sizes",))
    codec_sizes = _read(bundle, "codec", CodecConfig, codec_words["sizes"])
    region = _read(bundle, "codec", Region, codec_words["region"])
    words = generator_words["latencies"]
    where = f"{bundle.path / 'bundle.json'}, part 'generator', latencies"
    check_keys(words, LATENCIES, where)
    sampled = FlowSampling if system == V else RapLatency
    latencies: dict[str, Any] = {name: _read(bundle, "generator", sampled, words[name]) for name in LATENCIES}
    generator: FlowGenerator | RapDenoiser
    if system == V:
        generator = _load(bundle, "generator", FlowGenerator, _read(bundle, "generator", FlowConfig, generator_words["sizes"]))
    else:
        generator = _load(bundle, "generator", RapDenoiser, _read(bundle, "generator", RapConfig, generator_words["sizes"]))
    codec = _load(bundle, "codec", Codec, codec_sizes)
    with _said(bundle, "audio"):
        audio = source_of(
            bundle.part("audio").model, audio_words["sizes"], lambda sizes: _load(bundle, "audio", MelConfig.network, sizes)
        )
    motion = views = None
    if "motion" in bundle.parts:
        motion = _read(bundle, "motion", MotionConfig, _words(bundle, "motion", (MOTION,), ("sizes",))["sizes"])
    if "views" in bundle.parts:
        views = _read(bundle, "views", ViewsConfig, _words(bundle, "views", (VIEWS,), ("sizes",))["sizes"])
    parts = LatentParts(codec, generator, region, latencies, audio, motion, views)
    try:
        return performer_of(parts)
    except NoBundleError:
        raise
    except InputError as error:
        raise BundleError(f"{bundle.path}: {error}") from error


def performer_of(parts: LatentParts) -> LatentPerformer:
    """The performer of parts.

    Raises:
        InputError: they do not fit each other; latencies other than "quality" and "low".
        BundleError: the speech encoder or motion network is not here, or not the one that is asked for.
    """
    if tuple(parts.latencies) != LATENCIES:
        raise InputError(
            f"expected latencies {', '.join(LATENCIES)}, got {', '.join(parts.latencies) or 'none'}; name them so"
        )
    speech = parts.audio.open()
    check_fit(parts.codec.config, parts.generator.config, parts.region.size, speech.features)
    generators: dict[str, Generator[Any, Any]] = {}
    for name, latency in parts.latencies.items():
        if isinstance(parts.generator, FlowGenerator) and isinstance(latency, FlowSampling):
            generators[name] = FlowBlocks(parts.generator, latency)
        elif isinstance(parts.generator, RapDenoiser) and isinstance(latency, RapLatency):
            generators[name] = RapBlocks(parts.generator, latency)
        else:
            raise InputError(
                f"expected FlowSampling for V or RapLatency for RAP, got {type(latency).__name__} for a "
                f"{type(parts.generator).__name__}; give one that fits"
            )
    if parts.motion is not None:
        check_motion(parts.generator, isinstance(parts.audio, LiteConfig))
    motion = None if parts.motion is None else parts.motion.open()
    views = None if parts.views is None else parts.views.open()
    return LatentPerformer(parts.codec, generators, speech, parts.region, motion, views)


def _words(bundle: Bundle, name: str, models: tuple[str, ...], keys: tuple[str, ...]) -> Mapping[str, Any]:
    """The config of a part, its keys checked.

    Raises:
        BundleError: no such part, one of another system or version, or other keys.
    """
    part, where = bundle.part(name), f"{bundle.path / 'bundle.json'}, part {name!r}"
    if part.model not in models:
        raise BundleError(
            f"{where}: expected model {' or '.join(models)} for a bundle of {bundle.motion_space!r}, got {part.model!r}; use "
            "the parts of one system"
        )
    if not is_same(part.config.get("version"), VERSION):
        raise BundleError(
            f"{where}: expected version {VERSION}, got {part.config.get('version')!r}; use another version of ditto, or get "
            "the bundle again"
        )
    check_keys(part.config, ("version", *keys), f"{where}, config")
    return part.config


def _read(bundle: Bundle, name: str, kind: type[T], words: object) -> T:
    with _said(bundle, name):
        return from_json(kind, words)


@contextmanager
def _said(bundle: Bundle, name: str) -> Iterator[None]:
    """Raises BundleError where what a bundle says of a part cannot be."""
    try:
        yield
    except InputError as error:
        raise BundleError(f"{bundle.path / 'bundle.json'}, part {name!r}: {error}") from error


def _load(bundle: Bundle, name: str, make: Callable[[C], N], config: C) -> N:
    """The network of a part. Raises BundleError: its weights are missing or damaged, or not those of this config."""
    return load_network(make, config, bundle.part(name).file("weights"))
