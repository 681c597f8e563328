"""The parts of a full bundle behind the objects that `TalkingHead` is made of. Needs torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch

from ditto.bundle import Bundle, Part
from ditto.engines import Engine, open_engine
from ditto.errors import EngineError
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
from ditto.full.released import read_released
from ditto.full.renderer import NeuralFaceRenderer
from ditto.full.sampler import FullSampler, Sampling
from ditto.full.source import SourceReader
from ditto.full.space import FullSpace
from ditto.full.speech_stream import CachedEncoder
from ditto.full.speech_window import Network, WindowEncoder
from ditto.machine import cores
from ditto.performer import Performer
from ditto.row_performer import RowPerformer

Array = npt.NDArray[np.float32]

log = logging.getLogger(__name__)
PARTS = ("encoder", "motion", "appearance", "motion_extractor", "warping", "decoder", "stitching")
EYES = "eye_retargeting"  # if the bundle has it


@dataclass(frozen=True)
class FullOptions:
    """How a full bundle is run.

    Attributes:
        hearing: "window": HuBERT over 0.4 s windows, as released; "streaming": with a memory of what was said, as in the
            paper. The published motion network was trained on neither's exact features but on the released ONNX file's.
        context: with "streaming", speech (N,) at 16 kHz that every stream starts as if it had heard; None: nothing.
        sampling: the choices about motion.
        settings: "offline" or "online": the settings that were published with the checkpoints, and are in the bundle if the
            converter found them; None: the defaults here.
        landmarks: folder with the released ONNX files of face detector and landmarks (`detection`, `face_mesh`), for the crop
            and the eyes; None: MediaPipe's, as registered. InsightFace's are for research only.
        backend: of every network, one of `ditto.engines.BACKENDS`; the released HuBERT file is run by ONNX Runtime.
        device: "cpu", "cuda" or "cuda:1".
        precision: of the networks for pictures; those for speech and motion stay float32, as released.
        threads: on the CPU; None: one for each core.

    Raises:
        ValueError: fewer than one thread.
    """

    hearing: Literal["window", "streaming"] = "window"
    context: Array | None = None
    sampling: Sampling = field(default_factory=Sampling)
    settings: Literal["offline", "online"] | None = None
    landmarks: str | Path | None = None
    backend: str = "torch"
    device: str = "cpu"
    precision: str = "float32"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"expected threads to be 1 or more, got {self.threads}")

    def open(self, network: torch.nn.Module, precision: str = "float32") -> Engine:
        """An engine for a network."""
        threads = self.threads or cores()
        return open_engine(network, self.backend, threads, device=self.device, precision=precision)

    def open_file(self, network: Path) -> Engine:
        """ONNX Runtime's engine for a file: on the GPU where it can run all of it, else on the CPU, which the log says."""
        if self.device != "cpu":
            try:
                return open_engine(network, device=self.device)
            except EngineError as error:
                log.warning("%s runs on the CPU: %s", network.name, error)
        return open_engine(network, threads=self.threads or cores())

    def place(self, array: Array) -> Any:
        """What an engine is given again and again, where it wants it: with torch, on its device."""
        return torch.as_tensor(array, device=self.device) if self.backend == "torch" else array


class FullParts(NamedTuple):
    """What the performer of a full bundle is made of."""

    encoder: WindowEncoder | CachedEncoder
    sampler: FullSampler
    renderer: NeuralFaceRenderer
    space: FullSpace

    def performer(self) -> Performer:
        """The performer."""
        if isinstance(self.encoder, WindowEncoder):
            return RowPerformer(self.encoder, self.sampler, self.renderer, self.space)
        return RowPerformer(self.encoder, self.sampler, self.renderer, self.space)


def open_parts(bundle: Bundle, options: FullOptions | None = None) -> FullParts:
    """Encoder, sampler and renderer of a full bundle.

    Raises:
        BundleError: a part is missing, damaged, or does not fit its network.
        EngineError: a network cannot be run here.
        ValueError: an option there is not.
    """
    options = options or FullOptions()
    parts = {name: bundle.part(name) for name in PARTS}
    encoder = open_encoder(parts["encoder"], options)
    silence = np.zeros((1, encoder.hop_samples), np.float32)
    state: Any = encoder.initial_state(1)
    quiet = np.zeros((0, 1), np.float32)
    while not len(quiet):
        features, state = encoder(silence, state)
        quiet = features[0]

    sampling, precision, released = options.sampling, options.precision, options.sampling.released
    if options.settings is not None:
        released = read_released(released_settings(bundle.part("settings"), options.settings))
        sampling = replace(sampling, released=released)
    source_of = SourceReader(
        options.open(load_part(parts["appearance"]), precision),
        options.open(load_part(parts["motion_extractor"]), precision),
        options.open(load_part(bundle.part(EYES))) if EYES in bundle.parts else None,
        None if options.landmarks is None else OriginalLandmarks(options.landmarks),
        None if options.landmarks is None else OnnxFaceMesh(options.landmarks),
        options.place,
        FACE if released is None else released.framing,
    )
    exact = torch.float64 if sampling.schedule == "float64" else torch.float32
    motion = FastLMDM(
        cast(LMDM, load_part(parts["motion"])), ddim_schedule(sampling.all_steps, exact), sampling.guidance
    )
    renderer = NeuralRenderer(
        cast(WarpingNetwork, load_part(parts["warping"])), cast(SpadeDecoder, load_part(parts["decoder"]))
    )
    stitched = released is None or released.stitching
    stitching = options.open(load_part(parts["stitching"])) if stitched else None
    return FullParts(
        encoder,
        FullSampler(options.open(motion), source_of, quiet, encoder, sampling),
        NeuralFaceRenderer(source_of, options.open(renderer, precision), stitching),
        FullSpace(source_of),
    )


def released_hubert(engine: Engine) -> Network:
    """The released ONNX file: samples (B, 6480) -> rows (B, 20, D), a window at a time."""
    name = engine.inputs[0].name

    def rows(samples: Array) -> Array:
        found = [next(iter(engine(**{name: window[None]}).values())) for window in samples]
        return np.stack([row.reshape(-1, row.shape[-1]) for row in found])

    return rows


def open_encoder(part: Part, options: FullOptions) -> WindowEncoder | CachedEncoder:
    """The speech encoder.

    For windows it is the released ONNX file where the bundle has it, since the context inside it is in no other; else the
    network of the same sizes.

    Raises:
        ValueError: a way of hearing there is not, or a context shorter than a unit.
    """
    if options.hearing not in ("window", "streaming"):
        raise ValueError(f"hearing is window or streaming, got {options.hearing!r}")
    if options.hearing == "window" and "onnx" in part.files:
        return WindowEncoder(released_hubert(options.open_file(part.file("onnx"))))
    hubert = cast(Hubert, load_part(part))
    if options.hearing == "window":
        network = options.open(hubert)
        return WindowEncoder(lambda samples: network(samples=samples)["rows"])
    streaming = StreamingHubert(hubert)
    with torch.no_grad():
        heard = streaming.empty_state()
        if options.context is not None:
            heard = streaming.pseudo_context(torch.as_tensor(np.asarray(options.context, np.float32))[None])
    initial = {f"state.{name}": value.numpy() for name, value in heard._asdict().items()}
    return CachedEncoder(options.open(streaming), initial, streaming.samples)
