"""Opens the parts of a full bundle as a performer. Needs torch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from ditto.bundle import Bundle, Part
from ditto.engines import DeviceEngine, Engine, open_engine
from ditto.engines.networks import example_of
from ditto.engines.shared import SharedEngine
from ditto.engines.torch_engine import TorchEngine, torch_device
from ditto.errors import BundleError, EngineError
from ditto.full.conversion.settings import released_settings
from ditto.full.cropping import FACE
from ditto.full.detection import OriginalLandmarks
from ditto.full.face_mesh import OnnxFaceMesh
from ditto.full.networks.decoder import SpadeDecoder
from ditto.full.networks.hubert import Hubert
from ditto.full.networks.lmdm import LMDM, ddim_schedule
from ditto.full.networks.lmdm_fast import FastLMDM
from ditto.full.networks.loading import load_part
from ditto.full.networks.neural_renderer import NeuralRenderer
from ditto.full.networks.streaming_hubert import StreamingHubert
from ditto.full.networks.warping import WarpingNetwork
from ditto.full.released import ReleasedSettings, check_changes, read_released
from ditto.full.renderer import NeuralFaceRenderer
from ditto.full.retargeting import check_choices
from ditto.full.sampler import FullSampler, Sampling
from ditto.full.sizes import WINDOW_SAMPLES
from ditto.full.source import SourceReader
from ditto.full.space import FullSpace
from ditto.full.speech_stream import CachedEncoder
from ditto.full.speech_window import Network, WindowEncoder
from ditto.machine import cores
from ditto.performer import Performer
from ditto.row_performer import Encoder, RowPerformer

Array = npt.NDArray[np.float32]
E = TypeVar("E")  # state of the encoder

log = logging.getLogger(__name__)
PARTS = ("encoder", "motion", "appearance", "motion_extractor", "warping", "decoder", "stitching")
EYES = "eye_retargeting"  # optional part


@dataclass(frozen=True)
class FullOptions:
    """How a full bundle is run.

    Attributes:
        encoder: "window": HuBERT over windows of 0.4 s, as released; "streaming": HuBERT with a cache of past rows, as in
            the paper. The published motion network was trained on the features of the released ONNX file, not on either's.
        context: for "streaming", speech (N,) at 16 kHz; every stream starts with the encoder's state after it. None: the
            empty state.
        sampling: how motion is sampled.
        settings: "offline" or "online": the settings published with the checkpoints, which the bundle has if the converter
            found them; None: the defaults here.
        changes: released settings by their names, which take the place of those of `settings` or of the defaults here.
        landmarks: folder with the released ONNX files of face detector and landmarks (`detection`, `face_mesh`), for the crop
            and the eyes; None: the portrait's own MediaPipe landmarks. InsightFace's files are for research only.
        backend: of every network, one of `ditto.engines.BACKENDS`; ONNX Runtime runs the released HuBERT file.
        device: "cpu", "cuda" or "cuda:1".
        precision: of the networks for pictures; those for speech and motion stay float32, as released.
        threads: on the CPU; None: one for each core.
        batch: streams that share a forward of the motion network and of the renderer ("torch"). Every forward then has that
            size, so that bits do not depend on who else speaks; worth it on a GPU with several sessions.

    Raises:
        ValueError: fewer than one thread or stream, or several streams with another backend.
    """

    encoder: Literal["window", "streaming"] = "window"
    context: Array | None = None
    sampling: Sampling = field(default_factory=Sampling)
    settings: Literal["offline", "online"] | None = None
    changes: ReleasedSettings = field(default_factory=lambda: ReleasedSettings())
    landmarks: str | Path | None = None
    backend: str = "torch"
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"expected threads to be 1 or more, got {self.threads}; give another number")
        if self.batch < 1 or (self.batch > 1 and self.backend != "torch"):
            raise ValueError(
                f"expected batch to be 1 or more, and 1 with a backend other than torch, got {self.batch} with "
                f"{self.backend}; give another number"
            )

    def open(self, network: torch.nn.Module, precision: str = "float32", shared: bool = False) -> DeviceEngine:
        """An engine for a network; `shared` by the streams of a batch."""
        threads = self.threads or cores()
        if shared and self.batch > 1:
            example = example_of(network, self.batch)
            engine = TorchEngine(network, *example, self.device, precision, threads)
            return SharedEngine(engine, example_of(network))
        return open_engine(network, self.backend, threads, device=self.device, precision=precision)

    def open_file(self, network: Path) -> Engine:
        """ONNX Runtime's engine for a file: on the GPU if its provider can run all of it, else on the CPU with a warning."""
        if self.device != "cpu":
            try:
                return open_engine(network, device=self.device, shape=(1, WINDOW_SAMPLES))
            except EngineError as error:
                log.warning("%s runs on the CPU: %s", network.name, error)
        return open_engine(network, threads=self.threads or cores())

    @property
    def stays(self) -> bool:
        """Whether images and volumes stay on the device between networks."""
        return self.device != "cpu"

    def place(self, array: Array) -> Array | torch.Tensor:
        """An input that an engine gets again and again; for torch or a GPU a tensor on the device: it moves only once."""
        if self.backend != "torch" and not self.stays:
            return array
        return torch.as_tensor(array, device=torch_device(self.device))


class FullParts(NamedTuple):
    """The parts of a full bundle's performer."""

    encoder: WindowEncoder | CachedEncoder
    sampler: FullSampler
    renderer: NeuralFaceRenderer
    space: FullSpace

    def performer(self) -> Performer:
        """The performer of these parts."""
        if isinstance(self.encoder, WindowEncoder):
            return RowPerformer(self.encoder, self.sampler, self.renderer, self.space)
        return RowPerformer(self.encoder, self.sampler, self.renderer, self.space)


def open_parts(bundle: Bundle, options: FullOptions | None = None) -> FullParts:
    """Encoder, sampler and renderer of a full bundle.

    Raises:
        BundleError: a part is missing, damaged, or does not fit its network; the settings cannot be used.
        InputError: `FullOptions.changes` cannot be used.
        EngineError: a network cannot run here.
        ValueError: an unknown option.
    """
    options = options or FullOptions()
    check_changes(options.changes)
    parts = {name: bundle.part(name) for name in PARTS}
    if EYES in bundle.parts:
        parts[EYES] = bundle.part(EYES)
    encoder, silence = open_encoder(parts["encoder"], options)
    options = replace(options, sampling=with_settings(bundle, options))
    return parts_of({name: partial(load_part, part) for name, part in parts.items()}, encoder, silence, options)


def parts_of(
    networks: Mapping[str, Callable[[], torch.nn.Module]],
    encoder: WindowEncoder | CachedEncoder,
    silence: Array,
    options: FullOptions,
) -> FullParts:
    """Encoder, sampler and renderer from functions that give the networks of `PARTS` but the encoder, and of `EYES` if there
    is one; encoder and silence as of `encoder_of`; of `options` neither settings nor changes are read.

    Raises:
        EngineError: a network cannot run here.
    """
    sampling, precision = options.sampling, options.precision
    released = sampling.released
    source_of = SourceReader(
        options.open(networks["appearance"](), precision),
        options.open(networks["motion_extractor"](), precision),
        options.open(networks[EYES]()) if EYES in networks else None,
        None if options.landmarks is None else OriginalLandmarks(options.landmarks),
        None if options.landmarks is None else OnnxFaceMesh(options.landmarks),
        options.place,
        FACE if released is None else released.framing,
    )
    dtype = torch.float64 if sampling.schedule == "float64" else torch.float32
    motion = FastLMDM(
        cast(LMDM, networks["motion"]()), ddim_schedule(sampling.ddim_steps, dtype), sampling.guidance
    )
    renderer = NeuralRenderer(cast(WarpingNetwork, networks["warping"]()), cast(SpadeDecoder, networks["decoder"]()))
    stitches = released is None or released.stitching
    stitching = options.open(networks["stitching"]()) if stitches else None
    return FullParts(
        encoder,
        FullSampler(options.open(motion, shared=True), source_of, silence, encoder, sampling),
        NeuralFaceRenderer(source_of, options.open(renderer, precision, shared=True), stitching, options.stays),
        FullSpace(source_of),
    )


def with_settings(bundle: Bundle, options: FullOptions) -> Sampling:
    """How motion is sampled, with the settings of the bundle and those in their place. Errors as of `open_parts`."""
    sampling, changes = options.sampling, dict(options.changes)
    if options.settings is not None:
        if "settings" not in bundle.parts:
            raise BundleError(
                f"expected a part 'settings' in {bundle.path}, got {', '.join(bundle.parts)}; open it without settings, or "
                "convert the published files with theirs"
            )
        return replace(
            sampling, released=read_released(released_settings(bundle.part("settings"), options.settings) | changes)
        )
    if not changes:
        return sampling
    released = read_released({"sampling_timesteps": sampling.steps} | changes)
    if "overall_ctrl_info" not in changes:
        released = released._replace(edit=sampling.edit)
    return replace(sampling, released=released)


def first_features(encoder: Encoder[E]) -> Array:
    """The first features (n, D) that a stream of silence gives."""
    silence, state = np.zeros(encoder.hop_samples, np.float32), encoder.initial_state(1)
    while True:
        ((features, state),) = encoder.step_batch([silence], [state])
        if len(features):
            return features


def released_hubert(engine: Engine) -> Network:
    """The released ONNX file: samples (B, 6480) -> rows (B, 20, D), one window a call."""
    name = engine.inputs[0].name

    def rows(samples: Array) -> Array:
        found = [next(iter(engine(**{name: window[None]}).values())) for window in samples]
        return np.stack([row.reshape(-1, row.shape[-1]) for row in found])

    return rows


def open_encoder(part: Part, options: FullOptions) -> tuple[WindowEncoder | CachedEncoder, Array]:
    """The speech encoder, and its features (n, D) of silence.

    For windows it is the released ONNX file if the bundle has it, because only that file holds the context that the motion
    network was trained with; else the network of the same sizes.

    Raises:
        ValueError: an unknown encoder, or a context shorter than a unit.
    """
    check_choices(options)
    if options.encoder == "window" and "onnx" in part.files:
        encoder = WindowEncoder(released_hubert(options.open_file(part.file("onnx"))))
        return encoder, first_features(encoder)
    return encoder_of(cast(Hubert, load_part(part)), options)


def encoder_of(hubert: Hubert, options: FullOptions) -> tuple[WindowEncoder | CachedEncoder, Array]:
    """The speech encoder with this network, and its features (n, D) of silence.

    Raises:
        ValueError: a context shorter than a unit.
    """
    if options.encoder == "window":
        network = options.open(hubert)
        encoder = WindowEncoder(lambda samples: network(samples=samples)["rows"])
        return encoder, first_features(encoder)
    streaming = StreamingHubert(hubert)
    with torch.no_grad():
        start = streaming.empty_state()
        if options.context is not None:
            start = streaming.pseudo_context(torch.as_tensor(np.asarray(options.context, np.float32))[None])
    initial = {f"state.{name}": value.numpy() for name, value in start._asdict().items()}
    cached = CachedEncoder(options.open(streaming), initial, streaming.samples)
    return cached, first_features(cached)
